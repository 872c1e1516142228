#include "optim/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

namespace switchyard {
namespace {

constexpr ScheduleKind kKinds[] = {ScheduleKind::constant, ScheduleKind::linear, ScheduleKind::cosine,
                                   ScheduleKind::inverse_sqrt, ScheduleKind::wsd};

OptimConfig config(ScheduleKind kind, std::int64_t warmup, double min_ratio, std::int64_t decay_steps = 0) {
  OptimConfig c;
  c.lr = 8;
  c.schedule = {.kind = kind, .warmup_steps = warmup, .min_ratio = min_ratio, .decay_steps = decay_steps};
  return c;
}

// The rate of update n, counted from 1, of a run of 100.
double rate(const OptimConfig& c, std::int64_t n) { return learning_rate(c, n - 1, 100); }

TEST(Schedule, WarmsUpLinearlyWhateverTheKind) {
  for (ScheduleKind kind : kKinds) {
    const OptimConfig c = config(kind, 20, 0.25);
    EXPECT_DOUBLE_EQ(rate(c, 1), 0.4);
    EXPECT_DOUBLE_EQ(rate(c, 5), 2);
    EXPECT_DOUBLE_EQ(rate(c, 20), 8);
  }
}

TEST(Schedule, StartsAtTheHighestWithoutWarmUp) {
  EXPECT_DOUBLE_EQ(rate(config(ScheduleKind::constant, 0, 0.25), 1), 8);
  EXPECT_DOUBLE_EQ(rate(config(ScheduleKind::inverse_sqrt, 0, 0), 1), 8);
  EXPECT_DOUBLE_EQ(rate(config(ScheduleKind::inverse_sqrt, 0, 0), 4), 4);
  EXPECT_DOUBLE_EQ(rate(config(ScheduleKind::wsd, 0, 0), 1), 8);
  EXPECT_DOUBLE_EQ(rate(config(ScheduleKind::linear, 0, 0), 25), 6);
}

TEST(Schedule, ConstantStays) {
  EXPECT_DOUBLE_EQ(rate(config(ScheduleKind::constant, 20, 0.25), 21), 8);
  EXPECT_DOUBLE_EQ(rate(config(ScheduleKind::constant, 20, 0.25), 100), 8);
}

TEST(Schedule, LinearFallsToTheRatioAtTheLastUpdate) {
  const OptimConfig c = config(ScheduleKind::linear, 20, 0.25);
  EXPECT_DOUBLE_EQ(rate(c, 60), 5);  // half way: (8 + 2) / 2
  EXPECT_DOUBLE_EQ(rate(c, 80), 3.5);
  EXPECT_DOUBLE_EQ(rate(c, 100), 2);
  EXPECT_DOUBLE_EQ(rate(c, 500), 2);
}

TEST(Schedule, CosineFallsToTheRatioAtTheLastUpdate) {
  const OptimConfig c = config(ScheduleKind::cosine, 20, 0.25);
  EXPECT_NEAR(rate(c, 40), 2 + 6 * (1 + std::numbers::sqrt2 / 2) / 2, 1e-12);  // a quarter of the way
  EXPECT_NEAR(rate(c, 60), 5, 1e-12);
  EXPECT_NEAR(rate(c, 100), 2, 1e-12);
  EXPECT_NEAR(rate(c, 500), 2, 1e-12);
}

TEST(Schedule, DecayStepsEndTheDecayEarly) {
  const OptimConfig linear = config(ScheduleKind::linear, 20, 0.25, 40),
                    cosine = config(ScheduleKind::cosine, 20, 0, 40);
  EXPECT_DOUBLE_EQ(rate(linear, 30), 6.5);
  EXPECT_DOUBLE_EQ(rate(linear, 60), 2);
  EXPECT_DOUBLE_EQ(rate(linear, 61), 2);
  EXPECT_NEAR(rate(cosine, 40), 4, 1e-12);
  EXPECT_NEAR(rate(cosine, 60), 0, 1e-12);
}

TEST(Schedule, InverseSqrtFallsToItsFloor) {
  const OptimConfig c = config(ScheduleKind::inverse_sqrt, 4, 0.25);
  EXPECT_DOUBLE_EQ(rate(c, 16), 4);        // sqrt(4 / 16)
  EXPECT_DOUBLE_EQ(rate(c, 36), 8.0 / 3);  // sqrt(4 / 36)
  EXPECT_DOUBLE_EQ(rate(c, 64), 2);
  EXPECT_DOUBLE_EQ(rate(c, 100), 2);
}

// GLaM's, with 10,000 steps for our 16.
TEST(Schedule, InverseSqrtHoldsFirst) {
  OptimConfig c = config(ScheduleKind::inverse_sqrt, 0, 0);
  c.schedule.hold_steps = 16;
  EXPECT_DOUBLE_EQ(rate(c, 1), 8);
  EXPECT_DOUBLE_EQ(rate(c, 16), 8);
  EXPECT_DOUBLE_EQ(rate(c, 64), 4);
  EXPECT_DOUBLE_EQ(rate(c, 100), 3.2);
  c.schedule.warmup_steps = 4;  // within the hold
  EXPECT_DOUBLE_EQ(rate(c, 2), 4);
  EXPECT_DOUBLE_EQ(rate(c, 16), 8);
  EXPECT_DOUBLE_EQ(rate(c, 64), 4);
  c.schedule.warmup_steps = 25;  // longer than the hold
  EXPECT_DOUBLE_EQ(rate(c, 25), 8);
  EXPECT_DOUBLE_EQ(rate(c, 100), 4);
}

TEST(Schedule, WsdFallsInTheLastTenthOrTheStepsGiven) {
  const OptimConfig tenth = config(ScheduleKind::wsd, 20, 0.25), given = config(ScheduleKind::wsd, 20, 0, 40);
  EXPECT_DOUBLE_EQ(rate(tenth, 90), 8);
  EXPECT_DOUBLE_EQ(rate(tenth, 95), 5);
  EXPECT_DOUBLE_EQ(rate(tenth, 100), 2);
  EXPECT_DOUBLE_EQ(rate(given, 60), 8);
  EXPECT_DOUBLE_EQ(rate(given, 70), 6);
  EXPECT_DOUBLE_EQ(rate(given, 100), 0);
  EXPECT_DOUBLE_EQ(learning_rate(config(ScheduleKind::wsd, 0, 0), 4, 5), 0);  // a tenth of 5 updates is the last one
}

// A decay that would begin inside the warm-up begins behind it.
TEST(Schedule, WsdNeverCutsTheWarmUp) {
  const OptimConfig c = config(ScheduleKind::wsd, 80, 0, 60);
  EXPECT_DOUBLE_EQ(rate(c, 60), 6);
  EXPECT_DOUBLE_EQ(rate(c, 80), 8);
  EXPECT_DOUBLE_EQ(rate(c, 90), 4);
  EXPECT_DOUBLE_EQ(rate(c, 100), 0);
}

TEST(Schedule, AWarmUpLongerThanTheRunOnlyRises) {
  for (ScheduleKind kind : kKinds)
    for (std::int64_t warmup : {100, 400}) {
      const OptimConfig c = config(kind, warmup, 0.25);
      for (std::int64_t n = 1; n <= 100; ++n)
        EXPECT_DOUBLE_EQ(rate(c, n), 8.0 * static_cast<double>(n) / static_cast<double>(warmup));
    }
}

TEST(Schedule, IsContinuousAndNeverNegative) {
  for (ScheduleKind kind : kKinds)
    for (double min_ratio : {0.0, 0.1, 1.0})
      for (std::int64_t decay : {0, 5'000, 20'000}) {
        const OptimConfig c = config(kind, 1'000, min_ratio, decay);
        double before = 0;
        for (std::int64_t step = 0; step < 12'000; ++step) {  // 2,000 beyond the end
          const double lr = learning_rate(c, step, 10'000);
          ASSERT_GE(lr, 0);
          ASSERT_LE(lr, 8);
          // The steepest of all is the warm-up: a thousandth of the highest a step; wsd's tenth has the same slope.
          ASSERT_NEAR(lr, before, 8.0 / 1'000 * (1 + 1e-9)) << step;
          before = lr;
        }
      }
}

}  // namespace
}  // namespace switchyard
