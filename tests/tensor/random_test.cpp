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

}  // namespace
}  // namespace switchyard
