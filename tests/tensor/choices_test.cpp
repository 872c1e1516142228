#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "expert_cap.h"
#include "tensor/kernel_check.h"

namespace switchyard {
namespace {

using test::at, test::expect_near, test::floats, test::ints, test::poisoned, test::random;

const Kernels& k = kernels(Device{});

std::vector<std::int32_t> values(const Tensor& t) {
  return {t.data<std::int32_t>(), t.data<std::int32_t>() + t.numel()};
}

TEST(Choose, TakesTheScoresOfTheGivenExperts) {
  const Tensor p = floats({2, 3}, {.5f, .3f, .2f, .1f, .2f, .7f}), expert = ints({2, 2}, {2, 0, 1, 2});
  Tensor weight = poisoned({2, 2}, DType::f32);
  k.choose(weight, expert, p, Renormalise::no);
  expect_near(weight, floats({2, 2}, {.2f, .5f, .2f, .7f}), 0);
  k.choose(weight, expert, p, Renormalise::yes);
  expect_near(weight, floats({2, 2}, {2 / 7.f, 5 / 7.f, 2 / 9.f, 7 / 9.f}), 1e-7);
}

TEST(SelectionScores, AddTheBias) {
  Tensor score = poisoned({2, 2}, DType::f32);
  k.selection_scores(score, floats({2, 2}, {.5f, .5f, .25f, 1}), floats({2}, {1, -2}), {});
  expect_near(score, floats({2, 2}, {1.5f, -1.5f, 1.25f, -1}), 0);
}

// Three groups of two experts; by their best one alone groups 1 and 0 win, by both together 2 and 1. Equal groups: the
// first.
TEST(SelectionScores, LeaveTheGroupsWhoseBestSumUpToMost) {
  const Tensor p = floats({2, 6}, {.5f, .1f, .6f, .2f, .45f, .44f, .3f, .1f, .3f, .1f, .3f, .1f});
  Tensor score = poisoned({2, 6}, DType::f32);
  k.selection_scores(score, p, {}, {.groups = 3, .met = 2, .best = 1});
  for (std::int64_t i : {0, 1, 2, 3, 6, 7, 8, 9}) EXPECT_EQ(at(score, i), at(p, i)) << i;
  for (std::int64_t i : {4, 5, 10, 11}) EXPECT_EQ(at(score, i), -INFINITY) << i;
  k.selection_scores(score, p, {}, {.groups = 3, .met = 2, .best = 2});
  for (std::int64_t i : {2, 3, 4, 5}) EXPECT_EQ(at(score, i), at(p, i)) << i;
  for (std::int64_t i : {0, 1}) EXPECT_EQ(at(score, i), -INFINITY) << i;
  // A bias may change who wins.
  k.selection_scores(score, p, floats({6}, {0, 1, 0, 0, 0, 0}), {.groups = 3, .met = 1, .best = 1});
  EXPECT_EQ(at(score, 1), double{0.1f + 1.0f});
  for (std::int64_t i : {2, 3, 4, 5}) EXPECT_EQ(at(score, i), -INFINITY) << i;
}

TEST(ThinChoices, KeepsTheFirstAndWhatExceedsTheThreshold) {
  Tensor expert = ints({2, 3}, {4, 5, 6, 7, 8, 9});
  k.thin_choices(expert, floats({2, 3}, {.01f, .4f, .4f, .2f, .1f, .5f}),
                 floats({2, 3}, {.9f, .7f, .9f, .9f, .3f, .9f}), 0.5f);
  EXPECT_EQ(values(expert), (std::vector<std::int32_t>{4, 5, -1, 7, -1, 9}));
}

TEST(CountMeetings, CountsATokenOnceForEachBlockThatItMeets) {
  Tensor met = poisoned({2, 2}, DType::i32);
  k.count_meetings(met, ints({4, 3}, {0, 1, 3, 1, 2, 0, 5, 4, -1, -1, 0, 2}), {.experts = 6, .group = 2});
  EXPECT_EQ(values(met), (std::vector<std::int32_t>{2, 1, 1, 1}));
}

TEST(AdjustBias, MovesByTheSignOfWhatIsMissing) {
  Tensor bias = floats({4}, {.5f, .5f, .5f, .5f});
  k.adjust_bias(bias, floats({4}, {5, 3, 4, 4}), 0.25f);
  expect_near(bias, floats({4}, {.25f, .75f, .5f, .5f}), 0);
}

// As the definition: the candidates of those that share a capacity in order of priority, of which as many find room.
std::vector<std::int32_t> admitted(const Tensor& expert, const Tensor& score, Placement p, Priority priority) {
  const std::int64_t T = expert.dim(0), K = expert.dim(1), S = score.dim(1);
  std::vector<std::int32_t> slot(std::size_t(T * K), -1);
  for (std::int64_t g = 0; g < T; g += p.group)
    for (std::int64_t e = 0; e < p.experts / p.members; ++e) {
      std::vector<std::int64_t> candidates;
      for (std::int64_t i = g * K; i < (g + p.group) * K; ++i)
        if (expert.data<std::int32_t>()[i] >= 0 && expert.data<std::int32_t>()[i] / p.members == e)
          candidates.push_back(i);
      std::ranges::stable_sort(candidates, [&](std::int64_t a, std::int64_t b) {
        if (priority == Priority::choice_then_score && a % K != b % K) return a % K < b % K;
        return at(score, a / K * S + std::min(a % K, S - 1)) > at(score, b / K * S + std::min(b % K, S - 1));
      });
      for (std::size_t i = 0; i < std::min(candidates.size(), std::size_t(p.capacity)); ++i)
        slot[std::size_t(candidates[i])] = 0;
    }
  return slot;
}

TEST(AdmitByPriority, IsTheDefinition) {
  for (const Priority priority : {Priority::choice_then_score, Priority::score})
    for (const auto& [tokens, choices, experts, group, capacity] :
         {std::array<std::int64_t, 5>{12, 2, 3, 6, 2}, {8, 4, 4, 8, 3}, {9, 1, 2, 3, 5}, {4000, 3, 5, 1000, 400}})
      for (const bool each : {false, true}) {
        Tensor expert = poisoned({tokens, choices}, DType::i32);
        for (std::int64_t t = 0; t < tokens; ++t)
          for (std::int64_t c = 0; c < choices; ++c)
            expert.data<std::int32_t>()[t * choices + c] =
                (t + c) % 7 == 3 ? -1 : std::int32_t((t * t / 3 + c) % experts);
        // Few different scores, so that many are equal.
        Tensor score = random({tokens, each ? choices : 1}, 5);
        for (std::int64_t i = 0; i < score.numel(); ++i)
          score.data<float>()[i] = std::round(4 * score.data<float>()[i]);
        Tensor slot = poisoned(expert.shape(), DType::i32);
        const Placement placement{.experts = experts, .group = group, .capacity = capacity};
        k.admit_by_priority(slot, expert, score, placement, priority);
        EXPECT_EQ(values(slot), admitted(expert, score, placement, priority)) << tokens << each;
      }
}

// Expert choice (arXiv 2202.09368): every expert takes the `capacity` tokens that score it highest.
TEST(AdmitByPriority, ExpertsTakeTheirBestTokens) {
  const Tensor expert = ints({3, 2}, {0, 1, 1, 0, 0, 1}), score = floats({3, 2}, {.6f, .4f, .8f, .2f, .7f, .3f});
  Tensor slot = poisoned({3, 2}, DType::i32);
  k.admit_by_priority(slot, expert, score, {.experts = 2, .group = 3, .capacity = 2}, Priority::score);
  EXPECT_EQ(values(slot), (std::vector<std::int32_t>{0, 0, 0, -1, 0, -1}));
}

// DeepSeek-V2's devices: experts that share a capacity, of which a token may have chosen several.
TEST(AdmitByPriority, NeighboursShareACapacity) {
  const std::int64_t tokens = 60, choices = 4;
  Tensor expert = poisoned({tokens, choices}, DType::i32), slot = poisoned({tokens, choices}, DType::i32);
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t c = 0; c < choices; ++c)
      expert.data<std::int32_t>()[t * choices + c] = std::int32_t((t * t + c) % 6);
  const Tensor score = random({tokens, choices}, 5);
  for (const std::int64_t members : {1, 2, 3, 6}) {
    const Placement placement{.experts = 6, .group = 20, .capacity = 7 * members, .members = members};
    k.admit_by_priority(slot, expert, score, placement, Priority::score);
    EXPECT_EQ(values(slot), admitted(expert, score, placement, Priority::score)) << members;
  }
}

// The last rounds, of the same entropy, leave less than 1e-4 to go. Scores are of size 1 of which f32 keeps 1e-7, a
// two-hundredth of the entropy, and a hundred roundings may add up.
TEST(CappedScores, AreWhereDykstrasProjectionsArrive) {
  const ExpertCap cap{.experts = 2, .entropy = 0.05f, .rounds = 100};
  const Placement placement{.experts = 5, .group = 12, .capacity = 4};
  Tensor p = random({24, 5}, 3), score = poisoned({24, 5}, DType::f32);
  for (std::int64_t i = 0; i < p.numel(); ++i) p.data<float>()[i] = std::abs(p.data<float>()[i]) / 2 + (i % 5 == 0);
  k.capped_scores(score, p, placement, cap);
  for (std::int64_t g = 0; g < 2; ++g) {
    std::vector<double> of_group;
    for (std::int64_t i = 0; i < 60; ++i) of_group.push_back(at(p, 60 * g + i));
    const std::vector<double> a = test::capped_choice(of_group, 5, 4, cap, 3000);
    for (std::int64_t i = 0; i < 60; ++i)
      EXPECT_NEAR(std::min(1.0, std::exp(at(score, 60 * g + i) / .05)), a[std::size_t(i)], 2e-4) << g << ' ' << i;
  }
}

// Two tokens that every expert likes best, some more than others: without a cap each expert would take both.
TEST(CappedScores, KeepTokensFromHavingMoreThanTheCap) {
  const std::int64_t T = 8, E = 4;
  Tensor p = poisoned({T, E}, DType::f32), score = poisoned({T, E}, DType::f32);
  for (std::int64_t t = 0; t < T; ++t)
    for (std::int64_t e = 0; e < E; ++e)
      p.data<float>()[t * E + e] = t == 0 ? .5f + .02f * float(e) : t == 1 ? .56f - .02f * float(e) : .2f;
  for (const std::int64_t cap : {1, 2, 3}) {
    k.capped_scores(score, p, {.experts = E, .group = T, .capacity = 2}, {.experts = float(cap)});
    std::vector<std::int64_t> experts_of(T);
    for (std::int64_t e = 0; e < E; ++e) {
      std::vector<std::int64_t> order(T);
      std::iota(order.begin(), order.end(), 0);
      std::ranges::stable_sort(order, [&](auto a, auto b) { return at(score, a * E + e) > at(score, b * E + e); });
      for (std::size_t i = 0; i < 2; ++i) ++experts_of[std::size_t(order[i])];
    }
    EXPECT_EQ(experts_of[0], cap);
    EXPECT_EQ(experts_of[1], cap);
  }
}

// GShard's random second expert: a choice of -1 takes no room, is not counted and finds none.
TEST(Admit, NoChoiceTakesNoRoom) {
  const Tensor expert = ints({3, 2}, {0, -1, 1, 0, 1, 0});
  Tensor slot = poisoned({3, 2}, DType::i32), chosen = poisoned({1, 2, 2}, DType::i32);
  k.admit(slot, expert, {.experts = 2, .group = 3, .capacity = 2});
  EXPECT_EQ(values(slot), (std::vector<std::int32_t>{0, -1, 0, 0, 0, -1}));
  k.count_choices(chosen, expert, {.experts = 2, .group = 3});
  EXPECT_EQ(values(chosen), (std::vector<std::int32_t>{1, 2, 2, 0}));
}

}  // namespace
}  // namespace switchyard
