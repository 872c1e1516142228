#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "tensor/kernel_check.h"

namespace switchyard {
namespace {

using test::at, test::expect_near, test::floats, test::ints, test::poisoned, test::random;

const Kernels& k = kernels(Device{});

// Each is a handful of f32 roundings of numbers of size 1.
constexpr double kRounding = 1e-6;

TEST(Sigmoid, AndItsShares) {
  const Tensor x = random({70, 9}, 1, 6);
  Tensor s = poisoned(x.shape(), DType::f32), share = poisoned(x.shape(), DType::f32);
  k.sigmoid(s, share, x);
  for (std::int64_t t = 0; t < 70; ++t) {
    double sum = 0;
    for (std::int64_t e = 0; e < 9; ++e) sum += 1 / (1 + std::exp(-at(x, t * 9 + e)));
    for (std::int64_t i = t * 9; i < (t + 1) * 9; ++i) {
      EXPECT_NEAR(at(s, i), 1 / (1 + std::exp(-at(x, i))), kRounding);
      EXPECT_NEAR(at(share, i), 1 / (1 + std::exp(-at(x, i))) / sum, kRounding);
    }
  }
}

TEST(NoisyLogits, AddNoiseOfALearntDeviation) {
  const Tensor clean = floats({1, 4}, {1, 2, 3, 4}), raw = floats({1, 4}, {0, 100, -100, 1});
  const Tensor normal = floats({1, 4}, {1, -2, .5f, 0});
  Tensor noisy = poisoned({1, 4}, DType::f32), sigma = poisoned({1, 4}, DType::f32);
  k.noisy_logits(noisy, sigma, clean, raw, normal, 0.01f);
  const double softplus[] = {std::log(2), 100, 0, std::log(1 + std::exp(1))};
  for (std::int64_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(at(sigma, i), softplus[i] + 0.01, 1e-6 * (1 + softplus[i]));
    EXPECT_NEAR(at(noisy, i), at(clean, i) + at(normal, i) * (softplus[i] + 0.01), 1e-6 * (1 + 2 * softplus[i]));
  }
}

TEST(ChoiceProbability, ComparesWithTheKthOfTheOthers) {
  const std::int64_t tokens = 20, experts = 5, top_k = 2;
  const Tensor clean = random({tokens, experts}, 1), noisy = random({tokens, experts}, 2);
  Tensor sigma = random({tokens, experts}, 3);
  for (std::int64_t i = 0; i < sigma.numel(); ++i) sigma.data<float>()[i] = 0.5f + std::abs(sigma.data<float>()[i]);
  Tensor best = poisoned({tokens, top_k + 1}, DType::f32), expert = poisoned({tokens, top_k + 1}, DType::i32);
  k.top_k(best, expert, noisy, Renormalise::no);
  Tensor p = poisoned(clean.shape(), DType::f32);
  k.choice_probability(p, clean, sigma, best, expert);
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t e = 0; e < experts; ++e) {
      std::vector<double> others;
      for (std::int64_t o = 0; o < experts; ++o)
        if (o != e) others.push_back(at(noisy, t * experts + o));
      std::ranges::sort(others, std::greater{});
      const double z = (at(clean, t * experts + e) - others[top_k - 1]) / at(sigma, t * experts + e);
      EXPECT_NEAR(at(p, t * experts + e), 0.5 * std::erfc(-z / std::sqrt(2.0)), kRounding);
    }
}

// (4, 0): mean 2, variance 4: 1. Even loads: 0.
TEST(SquaredVariation, ByHand) {
  Tensor loss = poisoned({1}, DType::f32), dsum = poisoned({2, 2}, DType::f32);
  k.squared_variation(loss, dsum, floats({2, 2}, {4, 0, 3, 3}), 0.5f);
  EXPECT_NEAR(at(loss, 0), 0.5, 1e-7);
  // d/ds_0 of ((s_0 - s_1) / (s_0 + s_1))^2 = 4 s_1 (s_0 - s_1) / (s_0 + s_1)^3, and so on
  expect_near(dsum, floats({2, 2}, {0, -0.5f, 0, 0}), 1e-7);
}

TEST(Random, NormalNumbersComeInPairsFromTheWordsOfPhilox) {
  const PhiloxKey key = philox_key(7, "test");
  Tensor y = poisoned({70'001}, DType::f32);
  k.normal(y, key, 5);
  double mean = 0, square = 0;
  for (std::int64_t i = 0; i < y.numel(); ++i) {
    const auto words = philox(key, std::uint64_t(i + 5) / 2);
    const double radius = std::sqrt(-2 * std::log(double(uniform_f32(words[0])))),
                 angle = 2 * M_PI * double(uniform_f32(words[1]));
    // An angle of up to 2 pi is rounded to 5e-7, times a radius of up to 6.
    ASSERT_NEAR(at(y, i), radius * ((i + 5) % 2 == 0 ? std::cos(angle) : std::sin(angle)), 4e-6) << i;
    mean += at(y, i) / 70'001;
    square += at(y, i) * at(y, i) / 70'001;
  }
  EXPECT_NEAR(mean, 0, 4 / std::sqrt(70'001.0));  // four deviations
  EXPECT_NEAR(square, 1, 4 * std::sqrt(2.0 / 70'001));
}

TEST(Random, JitterMultipliesByUniformNumbers) {
  const PhiloxKey key = philox_key(7, "test");
  const Tensor x = random({33}, 1);
  Tensor y = poisoned({33}, DType::f32), u = poisoned({33}, DType::f32);
  k.jitter(y, x, key, 6, 0.25f);
  k.uniform(u, key, 6);
  for (std::int64_t i = 0; i < 33; ++i) EXPECT_NEAR(at(y, i), at(x, i) * (0.75 + 0.5 * at(u, i)), 2e-7);
}

}  // namespace
}  // namespace switchyard
