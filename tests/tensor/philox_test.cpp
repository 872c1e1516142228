#include "tensor/philox.h"

#include <gtest/gtest.h>

#include <set>

namespace switchyard {
namespace {

using Block = std::array<std::uint32_t, 4>;

// Random123's known answers for philox4x32-10 (kat_vectors).
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox({0, 0}, 0), (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({0xffffffff, 0xffffffff}, ~std::uint64_t{0}, ~std::uint64_t{0}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0xa4093822, 0x299f31d0}, 0x85a308d3243f6a88, 0x0370734413198a2e),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, KeysDifferByPurposeAndSeed) {
  std::set<std::uint64_t> keys;
  for (std::uint64_t seed : {0u, 1u, 256u})
    for (const char* purpose : {"", "init", "shuffle", "init model.layers.0", "init model.layers.1"}) {
      const PhiloxKey key = philox_key(seed, purpose);
      keys.insert(std::uint64_t{key.high} << 32 | key.low);
    }
  EXPECT_EQ(keys.size(), 15u);
  // FNV-1a (64 bit) of eight zero bytes and "a": fixed, because checkpoints rely on the same numbers for ever.
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (int i = 0; i < 8; ++i) hash *= 0x100000001b3u;
  hash = (hash ^ 'a') * 0x100000001b3u;
  const PhiloxKey key = philox_key(0, "a");
  EXPECT_EQ(std::uint64_t{key.high} << 32 | key.low, hash);
}

TEST(Philox, UniformIsInsideTheOpenInterval) {
  EXPECT_GT(uniform(0), 0);
  EXPECT_LT(uniform(0xffffffff), 1);
  EXPECT_NEAR(uniform(0x80000000), 0.5, 1e-9);
}

// The moments of n samples deviate by about sqrt(c / n): 0.01 is 3 deviations or more at n = 100000.
TEST(Philox, NormalHasTheMomentsOfANormal) {
  const PhiloxKey key = philox_key(7, "moments");
  constexpr int n = 100'000;
  double sum = 0, squares = 0, cubes = 0;
  for (int i = 0; i < n; ++i) {
    const double x = normal(key, static_cast<std::uint64_t>(i));
    sum += x, squares += x * x, cubes += x * x * x;
  }
  EXPECT_NEAR(sum / n, 0, 0.01);
  EXPECT_NEAR(squares / n, 1, 0.014);
  EXPECT_NEAR(cubes / n, 0, 0.037);
}

// var = 1 - 2 a phi(a) / (2 Phi(a) - 1) of a normal truncated at a = 2: 0.7737.
TEST(Philox, NormalIsRedrawnBeyondTheLimit) {
  const PhiloxKey key = philox_key(7, "truncated");
  constexpr int n = 100'000;
  double squares = 0;
  for (int i = 0; i < n; ++i) {
    const double x = normal(key, static_cast<std::uint64_t>(i), 2);
    ASSERT_LE(std::abs(x), 2);
    squares += x * x;
  }
  EXPECT_NEAR(squares / n, 0.7737, 0.01);
}

TEST(Philox, AnElementDependsOnNothingButItsIndex) {
  const PhiloxKey key = philox_key(3, "order");
  const double tenth = normal(key, 10);
  for (std::uint64_t i = 0; i < 10; ++i) EXPECT_NE(normal(key, i), tenth);
  EXPECT_EQ(normal(key, 10), tenth);
}

}  // namespace
}  // namespace switchyard
