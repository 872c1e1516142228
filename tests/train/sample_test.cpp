#include "train/sample.h"

#include <gtest/gtest.h>

#include <cmath>

namespace switchyard {
namespace {

TEST(Pick, FollowsTheProbabilities) {
  const std::vector<float> logits{0, std::log(2.0f), std::log(5.0f)};  // 1/8, 2/8, 5/8
  EXPECT_EQ(pick(logits, 1, 0, 0.12), 0);
  EXPECT_EQ(pick(logits, 1, 0, 0.13), 1);
  EXPECT_EQ(pick(logits, 1, 0, 0.37), 1);
  EXPECT_EQ(pick(logits, 1, 0, 0.38), 2);
  EXPECT_EQ(pick(logits, 1, 0, 0.9999999), 2);
}

TEST(Pick, TemperatureZeroTakesTheLikeliestAndTheFirstOfEquals) {
  EXPECT_EQ(pick({1, 3, 2}, 0, 0, 0.99), 1);
  EXPECT_EQ(pick({3, 3, 2}, 0, 0, 0.99), 0);
}

TEST(Pick, TopKLeavesOutTheRest) {
  const std::vector<float> logits{0, std::log(2.0f), std::log(5.0f)};  // of the best two: 2/7, 5/7
  EXPECT_EQ(pick(logits, 1, 2, 0.001), 1);
  EXPECT_EQ(pick(logits, 1, 2, 0.285), 1);
  EXPECT_EQ(pick(logits, 1, 2, 0.287), 2);
  EXPECT_EQ(pick(logits, 1, 1, 0.001), 2);
}

}  // namespace
}  // namespace switchyard
