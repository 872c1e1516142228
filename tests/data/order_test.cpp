#include <cmath>
#include <numbers>
#include <numeric>
#include <set>

#include "data/blend.h"
#include "data/permutation.h"
#include "data/temp_dir.h"

namespace switchyard {
namespace {

std::vector<std::int64_t> order(PhiloxKey key, std::int64_t size) {
  const Permutation permutation(key, size);
  std::vector<std::int64_t> order;
  for (std::int64_t i = 0; i < size; ++i) order.push_back(permutation(i));
  return order;
}

TEST(Permutation, IsABijectionAtEverySize) {
  for (std::int64_t size = 1; size <= 1000; ++size) {
    std::vector<bool> seen(static_cast<std::size_t>(size));
    for (const std::int64_t i : order({7, static_cast<std::uint32_t>(size)}, size)) {
      ASSERT_TRUE(0 <= i && i < size && !seen[static_cast<std::size_t>(i)]) << i << " of " << size;
      seen[static_cast<std::size_t>(i)] = true;
    }
  }
}

TEST(Permutation, DependsOnTheWholeKey) {
  const auto base = order({1, 2}, 100);
  EXPECT_EQ(order({1, 2}, 100), base);
  EXPECT_NE(order({3, 2}, 100), base);
  EXPECT_NE(order({1, 3}, 100), base);
}

// Over many keys, element i lands on each of 10 places equally often: chi-squared with 9 degrees of freedom is above
// 33.7 once in 10,000 times, and the keys are fixed.
TEST(Permutation, EveryElementGoesEverywhere) {
  constexpr int kKeys = 5000, kSize = 10;
  std::vector<std::vector<int>> count(kSize, std::vector<int>(kSize));
  for (std::uint32_t key = 0; key < kKeys; ++key) {
    const auto places = order({key, 99}, kSize);
    for (std::size_t i = 0; i < kSize; ++i) ++count[i][static_cast<std::size_t>(places[i])];
  }
  for (const auto& row : count) {
    double chi2 = 0;
    for (const int n : row) chi2 += std::pow(n - kKeys / 10.0, 2) / (kKeys / 10.0);
    EXPECT_LT(chi2, 33.7);
  }
}

TEST(Permutation, NeedsNoMemoryAtAnySize) {
  const Permutation permutation({5, 6}, std::int64_t{1} << 61);
  std::set<std::int64_t> seen;
  for (std::int64_t i = 0; i < 1000; ++i) seen.insert(permutation(i));
  EXPECT_EQ(seen.size(), 1000u);
}

// The definition: at every n, each source has less than one sample more or less than n times its weight's share.
void expect_near_shares(const std::vector<double>& weights, std::int64_t samples) {
  const Blend blend(weights);
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<std::int64_t> taken(weights.size());
  for (std::int64_t n = 0; n < samples; ++n) {
    const auto [source, index] = blend(n);
    const auto s = static_cast<std::size_t>(source);
    ASSERT_EQ(index, taken[s]++) << n;
    for (std::size_t i = 0; i < weights.size(); ++i)
      ASSERT_LT(std::abs(static_cast<double>(taken[i]) - static_cast<double>(n + 1) * weights[i] / total), 1.0)
          << "source " << i << " after " << n + 1;
  }
}

TEST(Blend, FollowsTheWeightsToWithinOneSample) {
  expect_near_shares({1}, 10);
  expect_near_shares({0.7, 0.2, 0.1}, 1000);
  expect_near_shares({1, 2, 5, 1e-3}, 20'000);
  expect_near_shares({1, 1, 1, 1, 1, 1, 1}, 500);
  expect_near_shares({90, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 4}, 20'000);
  expect_near_shares({0.13, 0, 0.29, 0.58}, 5000);
  expect_near_shares({std::numbers::pi, std::numbers::e, std::sqrt(2.0)}, 20'000);
}

TEST(Blend, WeightsBecomeTheSmallestExactShares) {
  EXPECT_EQ(Blend(std::vector{0.7, 0.2, 0.1}).shares(), (std::vector<std::int64_t>{7, 2, 1}));
  EXPECT_EQ(Blend(std::vector{3.0, 6.0}).shares(), (std::vector<std::int64_t>{1, 2}));
  EXPECT_EQ(Blend(std::vector{0.1234, 0.8766}).period(), 5000);
  EXPECT_EQ(Blend(std::vector{1e-9, 1.0}).shares(), (std::vector<std::int64_t>{1, Blend::kMaxPeriod - 1}));
  EXPECT_EQ(Blend(std::vector{std::numbers::pi, 1.0}).period(), Blend::kMaxPeriod);
}

TEST(Blend, FarAwaySamplesNeedNoHistory) {
  const Blend blend(std::vector{0.7, 0.2, 0.1});
  const std::int64_t far = 10'000'000'000'000;
  EXPECT_EQ(blend(far).source, blend(0).source);
  EXPECT_EQ(blend(far).index, 7'000'000'000'000);
}

TEST(Blend, RefusesWeightsThatMeanNothing) {
  for (const auto& weights : std::vector<std::vector<double>>{{}, {0, 0}, {1, -1}, {1, std::nan("")}, {1e308, 1e308}})
    expect_error(Fault::usage, {"weights"}, [&] { Blend blend(weights); });
}

}  // namespace
}  // namespace switchyard
