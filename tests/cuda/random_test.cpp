#include "cuda/both.h"

namespace switchyard::test {
namespace {

TEST(CudaRandom, IsThatOfTheCpu) {
  for (const std::int64_t count : {0, 1, 3, 4, 5, 4099})
    for (const std::uint64_t first : {std::uint64_t{0}, std::uint64_t{6}, (std::uint64_t{1} << 34) - 1}) {
      Both y = unwritten({count}, DType::f32);
      compare({{"y", &y, 0}},  // integers, and one product by a power of two
              [&](const Kernels& k, auto on) { k.uniform(on(y), philox_key(3, "test"), first); });
    }
}

}  // namespace
}  // namespace switchyard::test
