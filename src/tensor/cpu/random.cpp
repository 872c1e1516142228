#include "tensor/cpu/kernels.h"

namespace switchyard::cpu {

void uniform(Tensor& y, PhiloxKey key, std::uint64_t first) {
  float* out = y.data<float>();
  const auto count = static_cast<std::uint64_t>(y.numel());
  const std::uint64_t begin = first / 4, end = count == 0 ? begin : (first + count - 1) / 4 + 1;
#pragma omp parallel for schedule(static) if (count > 1 << 14)
  for (std::uint64_t block = begin; block < end; ++block) {
    const auto words = philox(key, block);
    for (std::uint64_t word = 0; word < 4; ++word) {
      const std::uint64_t i = 4 * block + word - first;  // wraps where the block begins before `first`
      if (i < count) out[i] = uniform_f32(words[word]);
    }
  }
}

}  // namespace switchyard::cpu
