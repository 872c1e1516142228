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

// One product by the same factor.
TEST(CudaRandom, Dropout) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const bool ordered : {false, true})
      for (const std::int64_t columns : {1, 6, 130}) {
        std::vector<std::int32_t> names, places;
        for (int r = 0; r < 40; ++r) {
          names.push_back(r % 5 == 2 ? -1 : 50'000'017 * r);
          places.push_back((7 * r + 3) % 40);
        }
        const Both x = random_both({40, columns}, dtype, 1), id = both(ints({40}, names)),
                   order = ordered ? both(ints({40}, places)) : Both{};
        Both y = unwritten({40, columns}, dtype);
        compare({{"y", &y, 0}}, [&](const Kernels& k, auto on) {
          k.dropout(on(y), on(x), on(id), on(order),
                    {.key = philox_key(3, "test"), .rate = .3f, .width = 4 * columns, .first = columns + 1});
        });
      }
}

}  // namespace
}  // namespace switchyard::test
