#include <gtest/gtest.h>

#include "tensor/kernels.h"

namespace switchyard {
namespace {

std::vector<std::int64_t> firsts(RelativeBuckets buckets) {
  std::vector<std::int64_t> firsts;
  for (std::int64_t b = 0; b < buckets.count; ++b) firsts.push_back(buckets.first(b));
  return firsts;
}

std::int64_t bucket_of(std::int64_t distance, RelativeBuckets buckets) {
  std::int64_t bucket = 0;
  for (std::int64_t b = 0; b < buckets.count; ++b)
    if (buckets.first(b) <= distance) bucket = b;
  return bucket;
}

// T5's own: 16 + 16 log(n / 16) / log(128 / 16), rounded down, from 16 on. log 8 = 2.0794.
TEST(RelativeBuckets, OfT5) {
  const RelativeBuckets t5{.count = 32, .max_distance = 128};
  for (std::int64_t n = 0; n < 16; ++n) EXPECT_EQ(bucket_of(n, t5), n);
  const std::pair<std::int64_t, std::int64_t> worked[] = {{16, 16},   // + 0
                                                          {18, 16},   // 16 * 0.1178 / 2.0794 = 0.91
                                                          {19, 17},   // 16 * 0.1719 / 2.0794 = 1.32
                                                          {20, 17},   // 16 * 0.2231 / 2.0794 = 1.72
                                                          {21, 18},   // 16 * 0.2719 / 2.0794 = 2.09
                                                          {32, 21},   // 16 / 3 = 5.33
                                                          {64, 26},   // 32 / 3 = 10.67
                                                          {112, 30},  // 16 * 1.9459 / 2.0794 = 14.97
                                                          {113, 31},  // 16 * 1.9548 / 2.0794 = 15.04
                                                          {127, 31}, {128, 31}, {129, 31}, {100000, 31}};
  for (const auto& [n, bucket] : worked) EXPECT_EQ(bucket_of(n, t5), bucket) << n;
}

TEST(RelativeBuckets, OfOtherSizes) {
  // 4 * 8^(k / 4): 4, 6.7, 11.3, 19.03
  EXPECT_EQ(firsts({.count = 8, .max_distance = 32}), (std::vector<std::int64_t>{0, 1, 2, 3, 4, 7, 12, 20}));
  // 2 * 4^(1/2) and 3 * 9^(k/3), of which pow rounds some upwards: 3 * 9^(1/3) = 6.24, 3 * 9^(2/3) = 12.98
  EXPECT_EQ(firsts({.count = 4, .max_distance = 8}), (std::vector<std::int64_t>{0, 1, 2, 4}));
  EXPECT_EQ(firsts({.count = 6, .max_distance = 27}), (std::vector<std::int64_t>{0, 1, 2, 3, 7, 13}));
  EXPECT_EQ(firsts({.count = 2, .max_distance = 5}), (std::vector<std::int64_t>{0, 1}));
  // 4 * (5/4)^(k/4) lies between 4 and 5: buckets 5 and 6 are empty
  EXPECT_EQ(firsts({.count = 8, .max_distance = 5}), (std::vector<std::int64_t>{0, 1, 2, 3, 4, 5, 5, 5}));
}

// Where the boundary is a whole number, its distance begins a bucket: 10^k and 2^k, whatever pow and log round.
TEST(RelativeBuckets, BeginAtWholePowers) {
  for (const std::int64_t base : {2, 3, 5, 7, 10}) {
    // e = 4, m / e = base^4
    const RelativeBuckets buckets{.count = 8, .max_distance = 4 * base * base * base * base};
    for (std::int64_t k = 0, power = 4; k < 4; ++k, power *= base) EXPECT_EQ(buckets.first(4 + k), power);
  }
}

// The published code (mesh_tensorflow, transformer_layers.py, and Hugging Face's modeling_t5.py), in double. It is not
// asked where the boundary is a whole number.
TEST(RelativeBuckets, AreThoseOfThePublishedCode) {
  for (const RelativeBuckets& buckets :
       {RelativeBuckets{32, 128}, {64, 1000}, {8, 50}, {10, 20}, {6, 4}, {128, 4096}}) {
    const std::int64_t exact = buckets.count / 2;
    for (std::int64_t n = 0; n < 2 * buckets.max_distance; ++n) {
      const double large = std::log(double(n) / double(exact)) /
                           std::log(double(buckets.max_distance) / double(exact)) * double(buckets.count - exact);
      if (n >= exact && n < buckets.max_distance && std::abs(large - std::round(large)) < 1e-9 && n > exact) continue;
      const std::int64_t bucket = n < exact ? n : std::min(exact + std::int64_t(large), buckets.count - 1);
      ASSERT_EQ(bucket_of(n, buckets), bucket) << n << " of " << buckets.count << " up to " << buckets.max_distance;
    }
  }
}

}  // namespace
}  // namespace switchyard
