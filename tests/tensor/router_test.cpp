#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "tensor/kernel_check.h"

namespace switchyard {
namespace {

using test::at, test::expect_near, test::floats, test::ints, test::poisoned, test::random;

const Kernels& k = kernels(Device{});

Tensor rows(std::int64_t tokens, std::int64_t width, DType dtype = DType::f32) {
  return poisoned({tokens, width}, dtype);
}
Tensor scalar() { return poisoned({1}, DType::f32); }

std::vector<std::int32_t> values(const Tensor& t) {
  return {t.data<std::int32_t>(), t.data<std::int32_t>() + t.numel()};
}

struct Probabilities {
  Tensor p_TE, lse_T;
};
Probabilities softmax_of(const Tensor& logits) {
  Probabilities s{poisoned(logits.shape(), DType::f32), poisoned({logits.dim(0)}, DType::f32)};
  k.softmax(s.p_TE, s.lse_T, logits);
  return s;
}

struct Chosen {
  Tensor weight_TK, expert_TK;
};
Chosen top_k_of(const Tensor& p, std::int64_t top_k, Renormalise renormalise) {
  Chosen c{rows(p.dim(0), top_k), rows(p.dim(0), top_k, DType::i32)};
  k.top_k(c.weight_TK, c.expert_TK, p, renormalise);
  return c;
}

struct Placed {
  std::vector<std::int32_t> slot, token, count;
  bool operator==(const Placed&) const = default;
};
Placed place(const Tensor& expert_TK, Placement placement) {
  Tensor slot = poisoned(expert_TK.shape(), DType::i32),
         count = poisoned({placement.parts, placement.experts}, DType::i32);
  // The poison of an index is -1, which is also an answer.
  const auto unanswered = [](Shape shape) {
    return ints(shape, std::vector<std::int32_t>(static_cast<std::size_t>(shape.numel()), 9999));
  };
  Tensor token = unanswered({placement.rows(expert_TK.dim(0), expert_TK.dim(1))});
  k.copy(slot, unanswered(slot.shape()));
  if (placement.capacity > 0) k.admit(slot, expert_TK, placement);
  k.place(slot, token, count, expert_TK, placement);
  return {values(slot), values(token), values(count)};
}

// The contract as loops: who is admitted, then who stands where.
Placed place_by_definition(const Tensor& expert_TK, Placement placement) {
  const std::int64_t tokens = expert_TK.dim(0), top_k = expert_TK.dim(1);
  const auto expert = [&](std::int64_t t, std::int64_t c) { return expert_TK.data<std::int32_t>()[t * top_k + c]; };
  std::vector<char> kept(static_cast<std::size_t>(tokens * top_k), 0);
  for (std::int64_t first = 0; first < tokens; first += placement.group)
    for (std::int32_t e = 0; e < placement.experts; ++e) {
      std::int64_t taken = 0;
      for (std::int64_t c = 0; c < top_k; ++c)
        for (std::int64_t t = first; t < first + placement.group; ++t)
          if (expert(t, c) == e && (placement.capacity == 0 || taken < placement.capacity)) {
            kept[static_cast<std::size_t>(t * top_k + c)] = 1;
            ++taken;
          }
    }
  Placed placed{std::vector<std::int32_t>(kept.size(), -1), {}, {}};
  const std::int64_t part = tokens / placement.parts;
  for (std::int64_t key = 0; key < placement.parts * placement.experts; ++key) {
    const std::int64_t p = key / placement.experts, e = key % placement.experts;
    if (placement.padded)
      placed.token.resize(static_cast<std::size_t>(key * (part / placement.group) * placement.capacity), -1);
    const std::size_t before = placed.token.size();
    for (std::int64_t t = p * part; t < (p + 1) * part; ++t)
      for (std::int64_t c = 0; c < top_k; ++c)
        if (const auto i = static_cast<std::size_t>(t * top_k + c); expert(t, c) == e && kept[i]) {
          placed.slot[i] = static_cast<std::int32_t>(placed.token.size());
          placed.token.push_back(static_cast<std::int32_t>(t));
        }
    placed.count.push_back(static_cast<std::int32_t>(placed.token.size() - before));
  }
  placed.token.resize(static_cast<std::size_t>(placement.rows(tokens, top_k)), -1);
  return placed;
}

// Different experts for each token; expert 1 is never chosen where there are enough others.
Tensor random_choices(std::int64_t tokens, std::int64_t top_k, std::int64_t experts, unsigned seed) {
  Tensor p = random({tokens, experts}, seed);
  if (top_k < experts)
    for (std::int64_t t = 0; t < tokens; ++t) p.data<float>()[t * experts + 1] = -2;
  return top_k_of(p, top_k, Renormalise::no).expert_TK;
}

TEST(Softmax, IsTheDefinitionForEveryWidth) {
  for (std::int64_t experts : {1, 2, 7, 8, 64, 129}) {
    const Tensor logits = random({5, experts}, 1, 20);
    const auto [p, lse] = softmax_of(logits);
    for (std::int64_t t = 0; t < 5; ++t) {
      double sum = 0;
      for (std::int64_t e = 0; e < experts; ++e) sum += std::exp(at(logits, t * experts + e));
      // f32 rounds logit - max (at most 40) to 2e-6 before the exponential, which makes that a relative error of p.
      EXPECT_NEAR(at(lse, t), std::log(sum), 4e-6);
      for (std::int64_t e = 0; e < experts; ++e) {
        const double expected = std::exp(at(logits, t * experts + e)) / sum;
        EXPECT_NEAR(at(p, t * experts + e), expected, 4e-6 * expected) << experts;
      }
    }
  }
}

TEST(Softmax, SurvivesLogitsThatOverflowTheExponential) {
  const auto [p, lse] = softmax_of(floats({2, 2}, {1000, 1000, -1000, -3000}));
  expect_near(p, floats({2, 2}, {0.5f, 0.5f, 1, 0}), 1e-7);
  expect_near(lse, floats({2}, {1000.693147f, -1000}), 1e-7);
}

TEST(TopK, TakesTheLowerIndexFirstAmongEquals) {
  const auto [weight, expert] =
      top_k_of(floats({3, 4}, {.25f, .25f, .25f, .25f, .1f, .4f, .4f, .1f, .2f, .1f, .2f, .5f}), 3, Renormalise::no);
  EXPECT_EQ(values(expert), (std::vector<std::int32_t>{0, 1, 2, 1, 2, 0, 3, 0, 2}));
  expect_near(weight, floats({3, 3}, {.25f, .25f, .25f, .4f, .4f, .1f, .5f, .2f, .2f}), 0);
}

TEST(TopK, IsAStableSortForEveryWidth) {
  for (std::int64_t experts : {1, 3, 8, 70})
    for (std::int64_t top_k = 1; top_k <= std::min<std::int64_t>(experts, 9); ++top_k) {
      Tensor p = random({20, experts}, 3);
      for (std::int64_t i = 0; i < p.numel(); ++i)
        p.data<float>()[i] = std::round(4 * p.data<float>()[i]);  // many ties
      const auto [weight, expert] = top_k_of(p, top_k, Renormalise::no);
      for (std::int64_t t = 0; t < 20; ++t) {
        std::vector<std::int32_t> order(static_cast<std::size_t>(experts));
        std::iota(order.begin(), order.end(), 0);
        std::ranges::stable_sort(order, std::greater{}, [&](std::int32_t e) { return at(p, t * experts + e); });
        for (std::int64_t c = 0; c < top_k; ++c) {
          EXPECT_EQ(expert.data<std::int32_t>()[t * top_k + c], order[static_cast<std::size_t>(c)]);
          EXPECT_EQ(at(weight, t * top_k + c), at(p, t * experts + order[static_cast<std::size_t>(c)]));
        }
      }
    }
}

TEST(TopK, ChoosesDifferentExpertsEvenOfNaN) {
  const float nan = std::nanf("");
  const auto [weight, expert] = top_k_of(floats({2, 3}, {nan, nan, nan, nan, .5f, .1f}), 2, Renormalise::yes);
  for (std::int64_t t = 0; t < 2; ++t) {
    const std::int32_t *chosen = expert.data<std::int32_t>() + 2 * t, a = chosen[0], b = chosen[1];
    EXPECT_TRUE(0 <= a && a < 3 && 0 <= b && b < 3 && a != b) << a << " " << b;
  }
}

// transformers' Mixtral: softmax over all, top 2, divided by their sum = softmax over the two chosen logits.
TEST(TopK, RenormalisedIsMixtralsSoftmaxOverTheChosenLogits) {
  const Tensor logits = random({16, 8}, 5, 3);
  const auto [weight, expert] = top_k_of(softmax_of(logits).p_TE, 2, Renormalise::yes);
  for (std::int64_t t = 0; t < 16; ++t) {
    const double a = at(logits, t * 8 + expert.data<std::int32_t>()[2 * t]),
                 b = at(logits, t * 8 + expert.data<std::int32_t>()[2 * t + 1]);
    EXPECT_NEAR(at(weight, 2 * t), 1 / (1 + std::exp(b - a)), 1e-6);  // a few roundings of numbers below 1
    EXPECT_NEAR(at(weight, 2 * t + 1), 1 / (1 + std::exp(a - b)), 1e-6);
  }
}

TEST(Place, IsTheDefinitionForGroupsCapacitiesAndAnEmptyExpert) {
  for (std::int64_t top_k : {1, 2, 3})
    for (std::int64_t group : {1, 4, 12, 24})
      for (std::int64_t capacity : {0, 1, 2, 5, 100}) {
        const Tensor expert = random_choices(24, top_k, 5, 7);
        const Placement placement{.experts = 5, .group = group, .capacity = capacity};
        const Placed placed = place(expert, placement);
        EXPECT_EQ(placed, place_by_definition(expert, placement)) << top_k << " " << group << " " << capacity;
        EXPECT_EQ(placed.count[1], 0);
        if (capacity == 0) continue;
        Placement padded = placement;
        padded.padded = true;
        EXPECT_EQ(place(expert, padded), place_by_definition(expert, padded))
            << top_k << " " << group << " " << capacity;
      }
}

TEST(Place, RowsOfOnePartLieBehindThoseOfTheOther) {
  for (std::int64_t parts : {2, 3})
    for (std::int64_t capacity : {0, 2, 100})
      for (bool padded : {false, true}) {
        if (capacity == 0 && padded) continue;
        const Tensor expert = random_choices(24, 2, 5, 7);
        const Placement placement{.experts = 5, .group = 4, .capacity = capacity, .padded = padded, .parts = parts};
        EXPECT_EQ(place(expert, placement), place_by_definition(expert, placement)) << parts << " " << capacity;
      }
  const Placed placed = place(ints({4, 1}, {1, 0, 1, 0}), {.experts = 2, .group = 2, .parts = 2});
  EXPECT_EQ(placed.slot, (std::vector<std::int32_t>{1, 0, 3, 2}));
  EXPECT_EQ(placed.token, (std::vector<std::int32_t>{1, 0, 3, 2}));
  EXPECT_EQ(placed.count, (std::vector<std::int32_t>{1, 1, 1, 1}));
}

// 2 groups of 4 tokens and a capacity of 2: each of 2 experts owns 4 rows. Expert 0 keeps tokens 0, 1 and 4, expert 1
// tokens 3, 5 and 6.
TEST(Place, PaddedExpertsOwnTheirRowsTakenOrNot) {
  const Placement placement{.experts = 2, .group = 4, .capacity = 2, .padded = true};
  EXPECT_EQ(placement.owned(8), 4);
  EXPECT_EQ(placement.rows(8, 1), 8);
  const Placed placed = place(ints({8, 1}, {0, 0, 0, 1, 0, 1, 1, 1}), placement);
  EXPECT_EQ(placed.slot, (std::vector<std::int32_t>{0, 1, -1, 4, 2, 5, 6, -1}));
  EXPECT_EQ(placed.token, (std::vector<std::int32_t>{0, 1, 4, -1, 3, 5, 6, -1}));
  EXPECT_EQ(placed.count, (std::vector<std::int32_t>{3, 3}));
}

TEST(Place, NothingIsPaddedWithoutACapacity) {
  const Tensor expert = random_choices(12, 2, 5, 7);
  EXPECT_EQ(place(expert, {.experts = 5, .group = 4, .padded = true}), place(expert, {.experts = 5, .group = 4}));
}

TEST(Place, IsTheDefinitionOnSeveralThreads) {
  const Tensor expert = random_choices(20'000, 2, 7, 8);  // enough for the parallel path
  for (std::int64_t parts : {1, 2}) {
    const Placement placement{.experts = 7, .group = 1000, .capacity = 300, .parts = parts};
    EXPECT_EQ(place(expert, placement), place_by_definition(expert, placement));
  }
}

TEST(Place, NoTokensGiveNoRows) {
  const Placed placed = place(rows(0, 2, DType::i32), {.experts = 3, .group = 4, .capacity = 1});
  EXPECT_EQ(placed, (Placed{{}, {}, {0, 0, 0}}));
}

// Switch (arXiv 2101.03961): top-1, capacity = tokens / experts * factor = 8 / 4 * 1 = 2; overflow goes the residual
// way.
TEST(Place, SwitchDropsWhatExceedsTheCapacityInTokenOrder) {
  const Placed placed = place(ints({8, 1}, {0, 0, 0, 1, 3, 3, 3, 1}), {.experts = 4, .group = 8, .capacity = 2});
  EXPECT_EQ(placed.slot, (std::vector<std::int32_t>{0, 1, -1, 2, 4, 5, -1, 3}));
  EXPECT_EQ(placed.token, (std::vector<std::int32_t>{0, 1, 3, 7, 4, 5, -1, -1}));
  EXPECT_EQ(placed.count, (std::vector<std::int32_t>{2, 2, 0, 2}));
}

// The gate of Switch is p itself; a lone expert's renormalised weight would be 1 and teach the router nothing.
TEST(TopK, SwitchKeepsTheProbability) {
  const auto [weight, expert] = top_k_of(floats({2, 3}, {.2f, .7f, .1f, .5f, .3f, .2f}), 1, Renormalise::no);
  expect_near(weight, floats({2, 1}, {.7f, .5f}), 0);
}

// GShard (arXiv 2006.16668, algorithm 1): weights renormalised over the two choices before capacity, and all first
// choices placed before any second one. Token by token, expert 1 would go to tokens 0 and 2 and lose token 3's first.
TEST(Place, GShardPlacesAllFirstChoicesBeforeSecondOnes) {
  const Tensor p = floats({4, 3}, {.6f, .3f, .1f, .6f, .1f, .3f, .5f, .4f, .1f, .2f, .7f, .1f});
  const auto [weight, expert] = top_k_of(p, 2, Renormalise::yes);
  EXPECT_EQ(values(expert), (std::vector<std::int32_t>{0, 1, 0, 2, 0, 1, 1, 0}));
  expect_near(weight, floats({4, 2}, {2 / 3.f, 1 / 3.f, 2 / 3.f, 1 / 3.f, 5 / 9.f, 4 / 9.f, 7 / 9.f, 2 / 9.f}), 2e-7);
  const Placed placed = place(expert, {.experts = 3, .group = 4, .capacity = 2});
  EXPECT_EQ(placed.slot, (std::vector<std::int32_t>{0, 2, 1, 4, -1, -1, 3, -1}));
  EXPECT_EQ(placed.token, (std::vector<std::int32_t>{0, 1, 0, 3, 1, -1, -1, -1}));
  EXPECT_EQ(placed.count, (std::vector<std::int32_t>{2, 2, 1}));
}

TEST(CountChoices, CountsEachGroupAndChoiceBeforeCapacity) {
  Tensor chosen = poisoned({2, 2, 3}, DType::i32);
  k.count_choices(chosen, ints({4, 2}, {0, 1, 0, 2, 2, 0, 1, 0}), {.experts = 3, .group = 2, .capacity = 1});
  EXPECT_EQ(values(chosen), (std::vector<std::int32_t>{2, 0, 0, 0, 1, 1, 0, 1, 1, 2, 0, 0}));
}

TEST(CountChoices, AGroupWithoutTokensCountsZero) {
  Tensor chosen = ints({1, 1, 2}, {7, 7});
  k.count_choices(chosen, rows(0, 1, DType::i32), {.experts = 2, .group = 1});
  EXPECT_EQ(values(chosen), (std::vector<std::int32_t>{0, 0}));
}

// Each count is divided by the tokens and rounded, and then the choices are added one by one.
TEST(ChoiceFractions, AreSharesOfTheTokensAddedInTheOrderOfChoices) {
  const Tensor chosen = ints({2, 3, 2}, {1, 2, 3, 4, 5, 6, 7, 0, 0, 7, 1, 1});
  for (std::int64_t counted : {0, 1, 2, 3}) {
    Tensor f = rows(2, 2);
    k.choice_fractions(f, chosen, counted, 7);
    for (std::int64_t i = 0; i < 4; ++i) {
      float expected = 0;
      for (std::int64_t c = 0; c < counted; ++c)
        expected += static_cast<float>(chosen.data<std::int32_t>()[(i / 2 * 3 + c) * 2 + i % 2]) / 7.0f;
      EXPECT_EQ(f.data<float>()[i], expected) << counted;
    }
  }
}

double balance(const Tensor& p, const Tensor& f, float scale) {
  Tensor loss = scalar();
  k.balance_loss(loss, p, f, scale);
  return at(loss, 0);
}

// Switch: alpha E sum_e f_e P_e, P_e the mean probability: alpha when uniform; Mixtral counts all K choices: alpha K.
TEST(BalanceLoss, IsTheCoefficientWhenUniformAndKTimesThatInMixtral) {
  const std::int64_t tokens = 12, experts = 4;
  const Tensor p = floats({tokens, experts}, std::vector<float>(48, .25f));
  const float alpha = .01f, scale = alpha * experts / tokens;
  EXPECT_NEAR(balance(p, floats({1, 4}, {.25f, .25f, .25f, .25f}), scale), alpha, 1e-9);
  EXPECT_NEAR(balance(p, floats({1, 4}, {.5f, .5f, .5f, .5f}), scale), 2 * alpha, 1e-9);
}

// P = (.65, .35), f = (.75, .25): 2 (.75 .65 + .25 .35) = 1.15
TEST(BalanceLoss, SwitchByHand) {
  const Tensor p = floats({4, 2}, {.9f, .1f, .8f, .2f, .6f, .4f, .3f, .7f});
  EXPECT_NEAR(balance(p, floats({1, 2}, {.75f, .25f}), 2.0f / 4), 1.15, 1e-6);
}

// Groups average apart: (.9 .8 | f 1 0) and (.6 .3 | f .5 .5) give (1.7 + 1) / 4 tokens, times 2 experts
TEST(BalanceLoss, UsesEachGroupsOwnLoad) {
  const Tensor p = floats({4, 2}, {.9f, .1f, .8f, .2f, .6f, .4f, .3f, .7f});
  EXPECT_NEAR(balance(p, floats({2, 2}, {1, 0, .5f, .5f}), 2.0f / 4), 1.35, 1e-6);
}

// ST-MoE: mean over tokens of lse^2; logits of 0 for two experts have lse = ln 2.
TEST(ZLoss, ByHand) {
  const auto s = softmax_of(floats({2, 2}, {0, 0, 1, 1}));
  Tensor loss = scalar();
  k.z_loss(loss, s.lse_T, 1.0f / 2);
  const double ln2 = std::log(2.0);
  EXPECT_NEAR(at(loss, 0), (ln2 * ln2 + (1 + ln2) * (1 + ln2)) / 2, 1e-6);
}

TEST(Entropy, IsLogEWhenUniformAndZeroWhenCertain) {
  Tensor sum = scalar();
  k.entropy(sum, floats({2, 4}, {.25f, .25f, .25f, .25f, 0, 1, 0, 0}));
  EXPECT_NEAR(at(sum, 0), std::log(4.0), 1e-6);
}

RoutingSums unwritten_sums(std::int64_t experts, std::int64_t top_k) {
  return {poisoned({experts}, DType::f32), poisoned({top_k}, DType::i32), poisoned({2}, DType::f32), scalar(),
          poisoned({1}, DType::i32)};
}

// The contract as loops, at sizes of several blocks, with dropped choices, choices that are none, and no tokens at all.
TEST(ObserveRouting, MatchesTheDefinition) {
  struct Case {
    std::int64_t tokens, experts, top_k;
  };
  for (const auto& [tokens, experts, top_k] : {Case{0, 3, 2}, Case{1, 1, 1}, Case{37, 5, 2}, Case{1300, 9, 3}})
    for (const bool has_before : {true, false}) {
      const Tensor logits = random({tokens, experts}, 21, 6), p = softmax_of(logits).p_TE;
      const Tensor before = has_before ? random({tokens, experts}, 22, 6) : Tensor{};
      const auto [weight, expert] = top_k_of(p, top_k, Renormalise::no);
      Tensor slot = Tensor::empty(expert.shape(), DType::i32, Device{}), chosen = expert;
      for (std::int64_t i = 0; i < slot.numel(); ++i) {
        slot.data<std::int32_t>()[i] = i % 3 == 0 ? -1 : std::int32_t(i);
        if (i % 7 == 3) chosen.data<std::int32_t>()[i] = -1;
      }
      std::vector<double> p_E(std::size_t(experts), 0);
      std::vector<std::int32_t> kept(std::size_t(top_k), 0);
      double gate = 0, dropped = 0, largest = 0;
      std::int32_t agreed = 0;
      for (std::int64_t t = 0; t < tokens; ++t) {
        std::int64_t best = 0, best_before = 0;
        for (std::int64_t e = 0; e < experts; ++e) {
          p_E[std::size_t(e)] += at(p, t * experts + e);
          largest = std::max(largest, std::abs(at(logits, t * experts + e)));
          if (at(logits, t * experts + e) > at(logits, t * experts + best)) best = e;
          if (has_before && at(before, t * experts + e) > at(before, t * experts + best_before)) best_before = e;
        }
        agreed += has_before && best == best_before;
        for (std::int64_t i = t * top_k; i < (t + 1) * top_k; ++i) {
          if (i % 7 == 3) continue;
          gate += at(weight, i);
          if (i % 3 == 0)
            dropped += at(weight, i);
          else
            ++kept[std::size_t(i - t * top_k)];
        }
      }
      RoutingSums sums = unwritten_sums(experts, top_k);
      k.observe_routing(sums, logits, before, p, weight, chosen, slot);
      // double sums, rounded once
      for (std::int64_t e = 0; e < experts; ++e)
        EXPECT_NEAR(at(sums.p_E, e), p_E[std::size_t(e)], 1e-7 * p_E[std::size_t(e)]);
      EXPECT_EQ(values(sums.kept_K), kept);
      EXPECT_NEAR(at(sums.gate_2, 0), gate, 1e-7 * gate);
      EXPECT_NEAR(at(sums.gate_2, 1), dropped, 1e-7 * dropped);
      EXPECT_EQ(at(sums.logit_1, 0), largest);
      EXPECT_EQ(values(sums.agreed_1), std::vector{agreed});
      if (tokens > 1000 && has_before) {
        EXPECT_GT(agreed, 0) << "some tokens were to agree by chance";
      }
    }
}

TEST(ObserveRouting, TheLargestLogitMayBeNegativeOrNoNumber) {
  const Tensor one = floats({1, 1}, {1});
  RoutingSums sums = unwritten_sums(2, 1);
  const auto largest = [&](float a, float b) {
    const Tensor x = floats({1, 2}, {a, b});
    k.observe_routing(sums, x, {}, x, one, ints({1, 1}, {0}), ints({1, 1}, {0}));
    return at(sums.logit_1, 0);
  };
  EXPECT_EQ(largest(-7, 3), 7);
  EXPECT_TRUE(std::isnan(largest(NAN, 3)));
  EXPECT_TRUE(std::isnan(largest(3, -NAN)));
}

TEST(Router, SumsDoNotDependOnTheNumberOfThreads) {
  const std::int64_t tokens = 9000, experts = 8;
  const auto s = softmax_of(random({tokens, experts}, 11, 4));
  const Tensor f = random({3, experts}, 12);
  const Chosen chosen = top_k_of(s.p_TE, 2, Renormalise::no);
  const auto sums = [&] {
    std::vector<Tensor> sums{scalar(), scalar(), scalar()};
    RoutingSums seen = unwritten_sums(experts, 2);
    k.balance_loss(sums[0], s.p_TE, f, 1);
    k.z_loss(sums[1], s.lse_T, 1);
    k.entropy(sums[2], s.p_TE);
    k.observe_routing(seen, s.p_TE, {}, s.p_TE, chosen.weight_TK, chosen.expert_TK, chosen.expert_TK);
    sums.insert(sums.end(), {seen.p_E, seen.gate_2, seen.logit_1});
    return sums;
  };
  test::expect_same_bits_on_any_threads(sums);

  double balance = 0, z = 0, entropy = 0;
  for (std::int64_t t = 0; t < tokens; ++t) {
    z += at(s.lse_T, t) * at(s.lse_T, t);
    for (std::int64_t e = 0; e < experts; ++e) {
      const double p = at(s.p_TE, t * experts + e);
      balance += at(f, t / 3000 * experts + e) * p;
      entropy -= p * std::log(p);
    }
  }
  // A row's sum is rounded to f32, the sum of rows is double: 6e-8 of the terms' size, which are at most 1 a token.
  const std::vector<Tensor> actual = sums();
  EXPECT_NEAR(at(actual[0], 0), balance, 1e-7 * tokens);
  EXPECT_NEAR(at(actual[1], 0), z, 1e-7 * z);
  EXPECT_NEAR(at(actual[2], 0), entropy, 2e-7 * entropy);
}

}  // namespace
}  // namespace switchyard
