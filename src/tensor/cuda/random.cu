#include "tensor/cuda/kernels.h"
#include "tensor/cuda/launch.cuh"

namespace switchyard::cuda {
namespace {

constexpr int kThreads = 256;

// A thread draws a block of Philox, four numbers at a time.
__global__ void uniform_kernel(float* y, PhiloxKey key, std::uint64_t first, std::uint64_t count) {
  const std::uint64_t end = (first + count - 1) / 4 + 1, stride = std::uint64_t{gridDim.x} * blockDim.x;
  for (std::uint64_t block = first / 4 + std::uint64_t{blockIdx.x} * blockDim.x + threadIdx.x; block < end;
       block += stride) {
    const auto words = philox(key, block);
    for (unsigned word = 0; word < 4; ++word) {
      const std::uint64_t i = 4 * block + word - first;  // wraps where the block begins before `first`
      if (i < count) y[i] = uniform_f32(words[word]);
    }
  }
}

}  // namespace

void uniform(Tensor& y, PhiloxKey key, std::uint64_t first) {
  Context& on = context(y.device());
  const std::int64_t blocks = y.numel() == 0 ? 0 : ceil_div(y.numel(), std::int64_t{4}) + 1;
  launch(on, "uniform", uniform_kernel, grid_for(on, blocks, kThreads), kThreads, 0, ptr<float>(y), key, first,
         static_cast<std::uint64_t>(y.numel()));
}

}  // namespace switchyard::cuda
