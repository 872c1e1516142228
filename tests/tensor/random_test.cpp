#include <cmath>

#include "tensor/kernel_check.h"

namespace switchyard {
namespace {

constexpr Device kCpu{};

std::vector<float> drawn(PhiloxKey key, std::uint64_t first, std::int64_t count) {
  Tensor y = test::poisoned({count}, DType::f32);
  kernels(kCpu).uniform(y, key, first);
  return {y.data<float>(), y.data<float>() + count};
}

TEST(Random, NumbersAreTheWordsOfPhiloxInOrder) {
  const PhiloxKey key = philox_key(7, "test");
  const std::vector<float> all = drawn(key, 0, 12);
  for (std::uint64_t i = 0; i < 12; ++i)
    EXPECT_EQ(double(all[i]), ((philox(key, i / 4)[i % 4] >> 9) + 0.5) / 8388608) << i;
}

TEST(Random, ANumberDependsOnItsIndexAlone) {
  const PhiloxKey key = philox_key(7, "test");
  constexpr std::int64_t kAll = 70'001;  // over several threads
  const std::vector<float> all = drawn(key, 5, kAll);
  for (const auto& [first, count] : {std::pair<std::int64_t, std::int64_t>{0, 0}, {0, 1}, {3, 9}, {1, 60'000}}) {
    const std::vector<float> part = drawn(key, std::uint64_t(5 + first), count);
    EXPECT_TRUE(std::equal(part.begin(), part.end(), all.begin() + first)) << first << ", " << count;
  }
  double mean = 0;
  for (float x : all) {
    ASSERT_GT(x, 0);
    ASSERT_LT(x, 1);
    mean += x / double(kAll);
  }
  EXPECT_NEAR(mean, 0.5, 4 * std::sqrt(1.0 / 12 / kAll));  // four deviations of the mean
}

// Rows 0 and 2 are called 5 and 3 by way of the order; row 1 has no name. The second tensor is the columns from 4 on.
TEST(Dropout, AnElementsFateDependsOnItsRowsNameAndColumnAlone) {
  const PhiloxKey key = philox_key(7, "test");
  const Tensor id = test::ints({3}, {3, 5, -1}), order = test::ints({3}, {1, 2, 0});
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const std::int64_t first : {0, 4, 5}) {
      const Tensor x = test::random_rows({3, 7}, dtype, 1);
      Tensor y = test::poisoned({3, 7}, dtype);
      kernels(kCpu).dropout(y, x, id, order, {.key = key, .rate = .4f, .width = 13, .first = first});
      for (std::int64_t r = 0; r < 3; ++r)
        for (std::int64_t f = 0; f < 7; ++f) {
          const double in = test::at(x, r * 7 + f), out = test::at(y, r * 7 + f);
          if (r == 1) {
            EXPECT_EQ(out, in);
            continue;
          }
          const auto number = std::uint64_t((r == 0 ? 5 : 3) * 13 + first + f);
          const bool is_dropped = ((philox(key, number / 4)[number % 4] >> 9) + 0.5) / 8388608 < double{.4f};
          EXPECT_NEAR(out, is_dropped ? 0 : in / (1 - double{.4f}), dtype == DType::f32 ? 1e-6 : 4e-3 * 4) << r << f;
        }
    }
}

}  // namespace
}  // namespace switchyard
