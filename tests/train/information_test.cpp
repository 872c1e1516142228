#include "train/information.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "tensor/philox.h"

namespace switchyard {
namespace {

constexpr std::int64_t kExperts = 4;

std::int32_t drawn(std::uint64_t purpose, std::size_t i, std::uint32_t below) {
  return static_cast<std::int32_t>(philox({static_cast<std::uint32_t>(purpose), 7}, i)[0] % below);
}

Labels labels(std::int32_t count, std::size_t tokens, std::uint64_t purpose) {
  Labels l = Labels::none(tokens);
  l.count = count;
  for (std::size_t t = 0; t < tokens; ++t) l.of_T[t] = drawn(purpose, t, std::uint32_t(count));
  return l;
}

// Each token goes to the expert that `expert(t)` names.
template <class F>
RoutedBlock routed(std::size_t tokens, F expert) {
  RoutedBlock block{.block = 1, .choices = 1};
  for (std::size_t t = 0; t < tokens; ++t) block.expert_TK.push_back(expert(t));
  return block;
}

TEST(Information, OfExpertsThatKnowTheLabelIsItsEntropy) {
  const Labels four = labels(4, 4000, 1), none = Labels::none(4000);
  std::map<std::int32_t, double> count;
  for (const std::int32_t l : four.of_T) ++count[l];
  double entropy = 0;
  for (const auto& [l, n] : count) entropy -= n / 4000 * std::log(n / 4000);
  const RoutedBlock block = routed(4000, [&](std::size_t t) { return (four.of_T[t] + 1) % 4; });
  // sums of 16 terms in f64
  EXPECT_NEAR(mutual_information(block, kExperts, four, none), entropy, 1e-12);
  EXPECT_NEAR(information_bound(block, kExperts, four, none), entropy, 1e-12);
  EXPECT_NEAR(entropy, std::log(4), 1e-3) << "even labels";
  // Given the label itself, nothing is left to tell.
  EXPECT_NEAR(mutual_information(block, kExperts, four, four), 0, 1e-12);
}

// Two labels, (3, 1) and (1, 3) of two experts: H(expert) - H(expert | label) = log 2 - h(1/4).
TEST(Information, ByHand) {
  const Labels two{{0, 0, 0, 0, 1, 1, 1, 1}, 2};
  const RoutedBlock block{.block = 0, .choices = 1, .expert_TK = {0, 0, 0, 1, 1, 1, 0, 1}};
  const double h = -0.25 * std::log(0.25) - 0.75 * std::log(0.75);
  EXPECT_NEAR(mutual_information(block, 2, two, Labels::none(8)), std::log(2) - h, 1e-12);
  EXPECT_NEAR(information_bound(block, 2, two, Labels::none(8)), std::log(2), 1e-12);
}

// Tokens that choose twice, or once, or not at all: sum p log(p / (q r)) over (stratum, label, expert), as loops.
TEST(Information, OfSeveralChoicesByTheDefinition) {
  constexpr std::size_t T = 500;
  const Labels label = labels(3, T, 2), stratum = labels(5, T, 3);
  RoutedBlock block{.block = 1, .choices = 2};
  for (std::size_t i = 0; i < 2 * T; ++i) block.expert_TK.push_back((drawn(4, i, 5) + label.of_T[i / 2]) % 5 - 1);

  std::map<std::vector<std::int32_t>, double> n;  // of what is named, the rest summed over
  double all = 0;
  for (std::size_t i = 0; i < 2 * T; ++i) {
    const std::int32_t e = block.expert_TK[i], l = label.of_T[i / 2], s = stratum.of_T[i / 2];
    if (e < 0) continue;
    ++all;
    ++n[{0, s}], ++n[{1, s, l}], ++n[{2, s, e}], ++n[{3, s, l, e}];
  }
  double expected = 0;
  for (std::int32_t s = 0; s < 5; ++s)
    for (std::int32_t l = 0; l < 3; ++l)
      for (std::int32_t e = 0; e < 4; ++e)
        if (const double both = n[{3, s, l, e}]; both > 0)
          expected += both / all * std::log(both * n[{0, s}] / (n[{1, s, l}] * n[{2, s, e}]));
  EXPECT_GT(expected, 0.01);
  EXPECT_NEAR(mutual_information(block, kExperts, label, stratum), expected, 1e-12);
}

TEST(Information, ShufflesDealTheLabelsOfEachStratum) {
  constexpr std::size_t T = 1000;
  const Labels label = labels(3, T, 5), stratum = labels(4, T, 6);
  const Labels dealt = shuffled(label, stratum, {1, 2});
  EXPECT_EQ(shuffled(label, stratum, {1, 2}).of_T, dealt.of_T);
  EXPECT_NE(shuffled(label, stratum, {1, 3}).of_T, dealt.of_T);
  std::map<std::pair<std::int32_t, std::int32_t>, int> before, after;
  int moved = 0;
  for (std::size_t t = 0; t < T; ++t) {
    ++before[{stratum.of_T[t], label.of_T[t]}], ++after[{stratum.of_T[t], dealt.of_T[t]}];
    moved += label.of_T[t] != dealt.of_T[t];
  }
  EXPECT_EQ(before, after);
  EXPECT_NEAR(moved, T * 2 / 3.0, 60) << "two thirds, to four deviations";
}

// Where experts and labels are independent, (labels - 1)(experts - 1) / 2N nats is what chance gives, in the mean.
TEST(Information, OfIndependentExpertsIsThatOfShuffles) {
  constexpr std::size_t T = 4000;
  const Labels label = labels(4, T, 8), none = Labels::none(T);
  RoutedText text{.experts = kExperts};
  text.blocks.push_back(routed(T, [](std::size_t t) { return drawn(9, t, 4); }));
  text.blocks.push_back(routed(T, [&](std::size_t t) { return t % 4 == 0 ? label.of_T[t] : drawn(10, t, 4); }));
  const std::vector<Information> told = information(text, label, none, 50, 1, "a label");
  constexpr double kChance = 9.0 / (2 * T);
  for (const Information& i : told) {
    // 2 N I is chi-squared with 9 degrees of freedom, of deviation sqrt(18): the mean of 50 to four deviations
    EXPECT_NEAR(i.shuffled_mean, kChance, 4 * std::sqrt(18.0 / 50) / (2 * T));
    EXPECT_NEAR(i.shuffled_sd, std::sqrt(18.0) / (2 * T), 0.5 * std::sqrt(18.0) / (2 * T));
    EXPECT_GT(i.shuffled_max, i.shuffled_mean);
  }
  EXPECT_LT(told[0].nats, 4 * kChance);
  EXPECT_GT(told[1].nats, 10 * told[1].shuffled_max) << "a quarter of the tokens go by their label";

  const std::vector<Information> again = information(text, label, none, 50, 1, "a label");
  const std::vector<Information> other = information(text, label, none, 50, 2, "a label");
  EXPECT_EQ(told[0].shuffled_mean, again[0].shuffled_mean);
  EXPECT_NE(told[0].shuffled_mean, other[0].shuffled_mean);
}

}  // namespace
}  // namespace switchyard
