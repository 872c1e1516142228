#include "moe/router.h"

#include <gtest/gtest.h>

#include "moe/cases.h"

namespace switchyard {
namespace {

using namespace test;

class Routers : public EachRouter {};
INSTANTIATE_TEST_SUITE_P(All, Routers, each_router(), name_of_router);

// The sums of a pass that observes, by the definition's choices and logits as loops.
TEST_P(Routers, AreObserved) {
  auto self = make_self_group();
  Mesh mesh({}, *self);
  Layer layer(config(), mesh);
  constexpr std::int64_t T = 16;
  const auto E = std::size_t(config().experts), K = std::size_t(config().router.top_k);
  const Tensor x = tokens(T, 0);
  const Rows x_TD = rows_of(x, 0, T);
  Rows gate_before, gate;
  if (Variable* weight = layer.find("gate.weight")) {
    layer.moe.router().remember();
    gate_before = rows_of(weight->value(), 0, config().experts);
    // Expert 0 now likes other tokens.
    for (std::int64_t d = 1; d < kDim; ++d) weight->value().data<float>()[d] *= -3;
    gate = rows_of(weight->value(), 0, config().experts);
  }
  RouterPass pass = pass_of(T, 0, T);
  EXPECT_FALSE(layer.moe(Variable(x, true), pass).stats.seen) << "nobody asked";
  pass.observe = true;
  const RoutingStats stats = layer.moe(Variable(x, true), pass).stats;
  ASSERT_TRUE(stats.seen);
  const auto& [seen, chosen_KE] = *stats.seen;

  const DefinedMoe now = definition(config(), x_TD, defined(config(), layer));
  if (config().router.choice == Choosing::tokens) {
    std::vector<int> chosen(K * E, 0), kept(K, 0);
    double weights = 0, dropped = 0;
    for (std::size_t t = 0; t < x_TD.size(); ++t)
      for (std::size_t k = 0; k < now.chosen[t].size(); ++k) {
        if (now.chosen[t][k] < 0) continue;  // left out at random
        const auto e = std::size_t(now.chosen[t][k]);
        ++chosen[k * E + e];
        kept[k] += now.kept[t][e];
        weights += now.weight[t][e];
        if (!now.kept[t][e]) dropped += now.weight[t][e];
      }
    for (std::size_t i = 0; i < K * E; ++i) EXPECT_EQ(chosen_KE.data<std::int32_t>()[i], chosen[i]) << i;
    for (std::size_t k = 0; k < K; ++k) EXPECT_EQ(seen.kept_K.data<std::int32_t>()[k], kept[k]) << k;
    // f32 sums of at most 128 weights of size 16 together, or 48 where they are scaled
    EXPECT_NEAR(at(seen.gate_2, 0), weights, 1e-4);
    EXPECT_NEAR(at(seen.gate_2, 1), dropped, 1e-4);
  }
  if (gate.empty() || config().router.jitter > 0) return;

  double largest_logit = 0;
  int agreed = 0;
  std::vector<double> p_E(E, 0);
  for (const auto& row : x_TD) {
    std::vector<double> logits, before, p;
    for (std::size_t e = 0; e < E; ++e) {
      logits.push_back(dot(row, gate[e]));
      before.push_back(dot(row, gate_before[e]));
      p.push_back(config().router.scores == Scoring::sigmoid ? 1 / (1 + std::exp(-logits[e])) : std::exp(logits[e]));
      largest_logit = std::max(largest_logit, std::abs(logits[e]));
    }
    for (std::size_t e = 0; e < E; ++e) p_E[e] += p[e] / std::accumulate(p.begin(), p.end(), 0.0);
    agreed += largest(logits, 1) == largest(before, 1);
  }
  EXPECT_NEAR(at(seen.logit_1, 0), largest_logit, 1e-6 * largest_logit);
  EXPECT_EQ(seen.agreed_1.data<std::int32_t>()[0], agreed);
  EXPECT_LT(agreed, T) << "some tokens were to go elsewhere";
  EXPECT_GT(agreed, 0) << "and some not";
  if (!config().router.noise) {
    for (std::size_t e = 0; e < E; ++e) EXPECT_NEAR(at(seen.p_E, std::int64_t(e)), p_E[e], 1e-5) << "16 shares in f32";
  }
}

// What a pass hands out is what the definition decides, and its logits, routed again, lead there too.
TEST_P(Routers, AreRecorded) {
  auto self = make_self_group();
  Mesh mesh({}, *self);
  Layer layer(config(), mesh);
  constexpr std::int64_t T = 16;
  const Tensor x = tokens(T, 0);
  RouterPass pass = pass_of(T, 0, T);
  EXPECT_FALSE(layer.moe(Variable(x, true), pass).stats.decided) << "nobody asked";
  pass.record = true;
  const auto decided = layer.moe(Variable(x, true), pass).stats.decided;
  ASSERT_TRUE(decided);
  const auto& [logits_TE, expert_TK, slot_TK] = *decided;

  const DefinedMoe expected = definition(config(), rows_of(x, 0, T), defined(config(), layer));
  ASSERT_EQ(expert_TK.shape(), slot_TK.shape());
  for (std::size_t t = 0; t < std::size_t(T); ++t) {
    std::vector<bool> kept(std::size_t(config().experts));
    for (std::size_t k = 0; k < std::size_t(expert_TK.dim(1)); ++k) {
      const auto i = t * std::size_t(expert_TK.dim(1)) + k;
      const std::int32_t expert = expert_TK.data<std::int32_t>()[i];
      if (config().router.choice == Choosing::tokens) {
        EXPECT_EQ(expert, expected.chosen[t][k]) << t << ", " << k;
      }
      if (slot_TK.data<std::int32_t>()[i] >= 0) kept.at(std::size_t(expert)) = true;
    }
    for (std::size_t e = 0; e < kept.size(); ++e) EXPECT_EQ(kept[e], expected.kept[t][e]) << t << ", " << e;
  }

  const Scores scores = logits_TE ? score(Variable(logits_TE), config().router.scores) : Scores{};
  Layer other(config(), mesh);
  const Routing again = other.moe.router().route(scores, pass);
  for (std::int64_t i = 0; i < expert_TK.numel(); ++i) {
    EXPECT_EQ(again.stats.decided->expert_TK.data<std::int32_t>()[i], expert_TK.data<std::int32_t>()[i]) << i;
    EXPECT_EQ(again.slot_TK.data<std::int32_t>()[i] < 0, slot_TK.data<std::int32_t>()[i] < 0) << i;
  }
}

TEST_P(Routers, TheScaleMultipliesEveryLossButZ) {
  auto self = make_self_group();
  Mesh mesh({}, *self);
  RouterPass pass = pass_of(16, 0, 16);
  const auto balance_losses = [&](float scale) {
    Layer layer(config(), mesh);
    pass.balance_scale = scale;
    const MoeResult result = layer.moe(Variable(tokens(16, 0), true), pass);
    const double all = result.loss_1 ? at(result.loss_1.value(), 0) : 0;
    EXPECT_NEAR(at(result.stats.balance_term_1, 0), all - config().router.z_loss * at(result.stats.z_1, 0),
                1e-5 * (1 + all));
    return at(result.stats.balance_term_1, 0);
  };
  const double one = balance_losses(1);
  EXPECT_NEAR(balance_losses(3), 3 * one, 1e-5 * (1 + one));
}

// The second half of a batch is balanced by the load of both, also where its forward runs again; a new step begins
// anew.
TEST(GlobalBalance, CountsTheMicroBatchesSoFar) {
  MoeConfig config = router_named("top2");
  config.router.balance_scope = BalanceScope::global;
  auto self = make_self_group();
  Mesh mesh({}, *self);
  Layer layer(config, mesh);
  const auto balance = [&](std::int64_t first, std::int64_t step) {
    RouterPass pass = pass_of(8, first, 16);
    pass.step = step;
    return at(layer.moe(Variable(tokens(8, first)), pass).stats.balance_1, 0);
  };
  // 1 / 16 sum over 8 tokens of 4 f_e p_e, with the f of so many
  const auto expected = [&](std::int64_t first, std::int64_t counted_from) {
    const std::int64_t counted = first + 8 - counted_from;
    config.router.group_size = 8;
    std::vector<double> f(4), P(4);
    const Rows x = rows_of(tokens(counted, counted_from), 0, counted);
    const Rows gate = defined(config, layer).gate;
    for (std::int64_t t = 0; t < counted; ++t) {
      std::vector<double> p;
      double sum = 0;
      for (const auto& row : gate) p.push_back(std::exp(dot(x[std::size_t(t)], row))), sum += p.back();
      f[std::size_t(std::ranges::max_element(p) - p.begin())] += 1 / double(counted);
      for (std::size_t e = 0; e < 4 && counted_from + t >= first; ++e) P[e] += p[e] / sum / 16;
    }
    return 4 * dot(f, P);
  };
  EXPECT_NEAR(balance(0, 0), expected(0, 0), 1e-6);
  EXPECT_NEAR(balance(8, 0), expected(8, 0), 1e-6);
  EXPECT_NEAR(balance(0, 0), expected(0, 0), 1e-6) << "again";
  EXPECT_NEAR(balance(8, 0), expected(8, 0), 1e-6) << "again";
  EXPECT_NEAR(balance(8, 1), expected(8, 8), 1e-6) << "the first of its step";
  EXPECT_GT(std::abs(expected(8, 0) - expected(8, 8)), 1e-4) << "the case should tell them apart";
}

// DeepSeek-V3: after each step an expert's bias falls by the rate if more than the mean came, and rises if fewer did.
TEST(Bias, FollowsTheLoadOfTheWholeStepOnEveryRank) {
  const MoeConfig& config = router_named("deepseek_v3");
  auto self = make_self_group();
  Mesh mesh({}, *self);
  Layer alone(config, mesh);
  std::vector<double> count(8);
  for (std::int64_t first : {0, 8, 16, 24})
    for (const auto& chosen : definition(config, rows_of(tokens(8, first), 0, 8), defined(config, alone)).chosen)
      for (int e : chosen) ++count[std::size_t(e)];
  std::vector<float> expected;
  for (std::size_t e = 0; e < 8; ++e)
    expected.push_back(alone.moe.router().bias().data<float>()[e] + float(count[e] < 12   ? 0.001
                                                                          : count[e] > 12 ? -0.001
                                                                                          : 0));

  for (const int ranks : {1, 2, 4})
    run_ranks(ranks, [&](ProcessGroup& world) {
      Mesh parts({}, world);
      Layer layer(config, parts);
      for (std::int64_t first = 8 * world.rank(); first < 32; first += 8 * world.size())
        for (int again = 0; again < 2; ++again)  // as recomputation does
          layer.moe(Variable(tokens(8, first)), pass_of(8, first, 32));
      layer.moe(Variable(tokens(8, 0)), {.capacity = Capacity::unlimited});  // evaluation moves nothing
      layer.moe.router().end_step();
      for (std::size_t e = 0; e < 8; ++e) EXPECT_EQ(layer.moe.router().bias().data<float>()[e], expected[e]) << e;
    });
}

// Its f is of the scores, whatever the bias makes of them, over the experts of all groups.
TEST(Bias, DoesNotMoveTheBalanceLoss) {
  const MoeConfig& config = router_named("deepseek_v3");
  auto self = make_self_group();
  Mesh mesh({}, *self);
  RouterPass pass = pass_of(16, 0, 16);
  pass.record = true;
  Layer layer(config, mesh);
  Tensor bias = layer.moe.router().bias();
  std::vector<double> balance;
  std::vector<std::vector<std::int32_t>> chosen;
  for (const float large : {0.0f, 5.0f}) {
    for (std::int64_t e = 0; e < bias.numel(); ++e) bias.data<float>()[e] = e == 2 || e == 7 ? large : 0;
    const RoutingStats stats = layer.moe(Variable(tokens(16, 0)), pass).stats;
    const DefinedMoe expected = definition(config, rows_of(tokens(16, 0), 0, 16), defined(config, layer));
    EXPECT_NEAR(at(stats.balance_1, 0), expected.balance, 1e-5);
    balance.push_back(at(stats.balance_1, 0));
    const Tensor& expert_TK = stats.decided->expert_TK;
    chosen.emplace_back(expert_TK.data<std::int32_t>(), expert_TK.data<std::int32_t>() + expert_TK.numel());
  }
  EXPECT_EQ(balance[0], balance[1]);
  EXPECT_NE(chosen[0], chosen[1]) << "the bias was to decide";
}

TEST(ExpertCapacity, RoundsUpAndIsZeroForDropless) {
  const auto capacity = [](double factor, std::int64_t top_k, std::int64_t group, std::int64_t experts) {
    return expert_capacity({.experts = experts, .router = {.top_k = top_k, .capacity_factor = factor}}, group);
  };
  EXPECT_EQ(capacity(1.0, 1, 8, 4), 2);    // Switch: tokens / experts * factor
  EXPECT_EQ(capacity(1.25, 1, 8, 4), 3);   // 2.5
  EXPECT_EQ(capacity(1.0, 2, 64, 8), 16);  // GShard: 2 S / E
  EXPECT_EQ(capacity(1.1, 1, 10, 1), 10);  // there are no more
  EXPECT_EQ(capacity(1.1, 1, 20, 2), 11);  // 1.1 * 10 is a little more than 11 in binary
  EXPECT_EQ(capacity(0, 2, 64, 8), 0);
}

TEST(DeviceCapacity, IsOfAllChoicesAndMayBeMoreThanTheTokens) {
  MoeConfig config{.experts = 8, .router = {.top_k = 6, .expert_groups = 2, .device_capacity = 1}};
  EXPECT_EQ(device_capacity(config, 8), 24);
  config.router.device_capacity = 0;
  EXPECT_EQ(device_capacity(config, 8), 0);
}

}  // namespace
}  // namespace switchyard
