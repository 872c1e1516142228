#include "moe/health.h"

#include <gtest/gtest.h>

#include <cmath>

#include "grad_check.h"

namespace switchyard {
namespace {

// Four experts and two choices of ten tokens; expert 3 gets none, the first choices are six of expert 0.
HealthSums sums() {
  HealthSums s{.experts = 4, .choices = 2};
  s.tokens = 10;
  s.balance_term = 0.15;
  s.z = 2;
  s.entropy = 8;
  s.gate = 10;
  s.dropped_gate = 2.5;
  s.agreed = 7;
  s.largest_logit = 12;
  s.p_E = {5, 3, 2, 0};
  s.kept_K = {8, 5};
  s.chosen_KE = {6, 3, 1, 0, 2, 3, 5, 0};
  return s;
}

TEST(RouterHealth, ByHand) {
  const RouterHealth h = health_of(sums(), {.z_coefficient = 0.01, .has_before = true});
  EXPECT_EQ(h.load, (std::vector{8.0 / 5, 6.0 / 5, 6.0 / 5, 0.0})) << "20 choices of 4 experts are 5 each";
  EXPECT_DOUBLE_EQ(h.load_min, 0);
  EXPECT_DOUBLE_EQ(h.load_p10, 0.3 * 1.2) << "three tenths of the way from the first of four to the second";
  EXPECT_DOUBLE_EQ(h.load_p50, 1.2);
  EXPECT_DOUBLE_EQ(h.load_p90, 1.2 + 0.7 * 0.4);
  EXPECT_DOUBLE_EQ(h.load_max, 1.6);
  EXPECT_DOUBLE_EQ(h.load_cv, std::sqrt((0.36 + 0.04 + 0.04 + 1) / 4));
  EXPECT_DOUBLE_EQ(h.dead_experts, 0.25);
  const double entropy = -(0.5 * std::log(0.5) + 0.3 * std::log(0.3) + 0.2 * std::log(0.2));
  EXPECT_DOUBLE_EQ(h.entropy_of_mean, entropy);
  EXPECT_DOUBLE_EQ(h.evenness, std::exp(entropy) / 4);
  EXPECT_DOUBLE_EQ(h.mean_entropy, 0.8);
  EXPECT_EQ(h.dropped, (std::vector{0.2, 0.5}));
  EXPECT_DOUBLE_EQ(h.drop_fraction, 7.0 / 20);
  EXPECT_DOUBLE_EQ(h.dropped_gate, 0.25);
  EXPECT_DOUBLE_EQ(h.largest_logit, 12);
  EXPECT_DOUBLE_EQ(h.balance_term, 0.15);
  EXPECT_DOUBLE_EQ(h.z_term, 0.01 * 2);
  EXPECT_DOUBLE_EQ(h.agreement, 0.7);
}

TEST(RouterHealth, HasNoAgreementBeforeTheSecondReading) { EXPECT_TRUE(std::isnan(health_of(sums(), {}).agreement)); }

TEST(RouterHealth, OfOneExpertIsEven) {
  HealthSums one{.experts = 1, .choices = 1};
  one.tokens = 3;
  one.p_E = one.kept_K = one.chosen_KE = {3};
  const RouterHealth h = health_of(one, {});
  EXPECT_EQ(h.load_min, 1);
  EXPECT_EQ(h.load_max, 1);
  EXPECT_EQ(h.load_cv, 0);
  EXPECT_EQ(h.evenness, 1);
  EXPECT_EQ(h.drop_fraction, 0);
}

TEST(RouterHealth, OfNoTokensIsFinite) {
  const RouterHealth h = health_of({.experts = 2, .choices = 2}, {.has_before = true});
  for (const Reading& reading : readings()) EXPECT_TRUE(std::isfinite(h.*reading.value)) << reading.name;
}

TEST(Observe, RefusesTensorsOfDifferentTokens) {
  const Tensor te = test::random({3, 4}, 1), tk = test::random({3, 2}, 2), other = test::random({2, 4}, 3);
  const Tensor expert = Tensor::zeros({3, 2}, DType::i32, Device{});
  EXPECT_THROW(observe(other, {}, te, tk, expert, expert), Error);
  EXPECT_THROW(observe(te, other, te, tk, expert, expert), Error);
}

}  // namespace
}  // namespace switchyard
