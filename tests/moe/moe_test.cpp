#include "moe/moe.h"

#include <gtest/gtest.h>

#include <functional>

#include "dist/gradients.h"
#include "grad_check.h"
#include "moe/definition.h"
#include "slices.h"

namespace switchyard {
namespace {

using test::at, test::random, test::Rows;

constexpr std::int64_t kDim = 6, kWidth = 6, kTokensPerRank = 8, kStep = 3;

// The experts' weights and a router that never chooses expert 2 and mostly chooses expert 0: an empty expert, uneven
// loads and, with a capacity, drops.
struct Layer {
  ParameterMaker make{1, Device{}};
  Moe moe;
  Parameters parameters;

  Layer(const MoeConfig& config, Mesh& mesh)
      : moe(config, kDim, "moe", {.std = 0.5}, {.std = 0.5}, mesh, make), parameters(make.take()) {
    unsigned seed = 3;
    for (const char* name : {"gate.weight", "gate.noise_weight"}) {
      Variable* router = find(name);
      if (!router) continue;
      const Tensor values = random(router->shape(), seed++);
      std::copy_n(values.data<float>(), values.numel(), router->value().data<float>());
    }
    // Feature 0 of every token is 1 (see tokens()), so column 0 is a bias.
    if (Variable* router = find("gate.weight")) {
      router->value().data<float>()[0 * kDim] = 2;
      router->value().data<float>()[2 * kDim] = -50;
    }
    Tensor bias = moe.router().bias();
    for (std::int64_t e = 0; bias && e < bias.numel(); ++e) bias.data<float>()[e] = float(e % 3) * 0.2f - 0.1f;
  }

  Variable* find(const std::string& ending) {
    for (Parameter& p : parameters)
      if (p.name.ends_with(ending)) return &p.variable;
    return nullptr;
  }
};

Tensor tokens(std::int64_t count, std::int64_t first) {
  Tensor x = Tensor::empty({count, kDim}, DType::f32, Device{});
  const Tensor all = random({64, kDim}, 17);
  for (std::int64_t t = 0; t < count; ++t)
    for (std::int64_t d = 0; d < kDim; ++d)
      x.data<float>()[t * kDim + d] = d == 0 ? 1 : all.data<float>()[(first + t) * kDim + d];
  return x;
}

// Their ids, some of them equal.
std::vector<std::int32_t> ids(std::int64_t count, std::int64_t first) {
  std::vector<std::int32_t> ids;
  for (std::int64_t t = first; t < first + count; ++t) ids.push_back(std::int32_t(t * t % 23));
  return ids;
}

RouterPass pass_of(std::int64_t count, std::int64_t first, std::int64_t all) {
  return {.share = 1.0f / float(all),
          .step = kStep,
          .first_token = first,
          .token_T = test::ints({count}, ids(count, first))};
}

Rows rows_of(const Tensor& t, std::int64_t first, std::int64_t count) {
  const std::int64_t width = t.dim(-1);
  Rows rows;
  for (std::int64_t r = first; r < first + count; ++r) {
    rows.emplace_back();
    for (std::int64_t d = 0; d < width; ++d) rows.back().push_back(at(t, r * width + d));
  }
  return rows;
}

std::string up_name(const MoeConfig& config) {
  return *config.activation == Activation::relu ? "up_proj" : "gate_up_proj";
}

test::DefinedParameters defined(const MoeConfig& config, Layer& layer) {
  test::DefinedParameters w;
  if (const Variable* gate = layer.find("gate.weight")) w.gate = rows_of(gate->value(), 0, config.experts);
  if (const Variable* noise = layer.find("gate.noise_weight")) w.noise = rows_of(noise->value(), 0, config.experts);
  if (const Tensor bias = layer.moe.router().bias()) w.bias = rows_of(bias.view({1, config.experts}), 0, 1)[0];
  const std::string up = up_name(config);
  for (std::int64_t e = 0; e < config.experts; ++e) {
    const Tensor& up_EFD = layer.find("experts." + up)->value();
    w.up.push_back(rows_of(up_EFD, e * up_EFD.dim(1), up_EFD.dim(1)));
    w.down.push_back(rows_of(layer.find("moe.experts.down_proj")->value(), e * kDim, kDim));
  }
  if (config.shared_experts > 0) {
    const Tensor& up_FD = layer.find("shared_experts." + up + ".weight")->value();
    w.shared_up = rows_of(up_FD, 0, up_FD.dim(0));
    w.shared_down = rows_of(layer.find("shared_experts.down_proj.weight")->value(), 0, kDim);
  }
  return w;
}

test::DefinedMoe definition(const MoeConfig& config, const Rows& x, const test::DefinedParameters& w) {
  return test::defined_moe(config, x, w, {.step = kStep, .token = ids(std::int64_t(x.size()), 0)});
}

struct Case {
  std::string name;
  MoeConfig config;
};

MoeConfig softmax_of(std::int64_t top_k, bool renormalise, double capacity_factor, BalanceCounts counts) {
  return {.experts = 4,
          .d_ff = kWidth,
          .router = {.top_k = top_k,
                     .renormalise = renormalise,
                     .capacity_factor = capacity_factor,
                     .balance_loss = 0.3,
                     .balance_counts = counts,
                     .z_loss = 0.2}};
}

MoeConfig with_shared(MoeConfig config) {
  config.shared_experts = 2;
  return config;
}

MoeConfig ungated(MoeConfig config) {
  config.activation = Activation::relu;
  return config;
}

MoeConfig with_dropout(MoeConfig config) {
  config.expert_dropout = 0.4;
  return config;
}

MoeConfig padded(MoeConfig config) {
  config.dispatch = Dispatch::padded;
  return config;
}

// In halves, of one group each where there are 8 tokens.
MoeConfig overlapped(MoeConfig config) {
  config.router.group_size = 4;
  config.overlap = Overlap::on;
  return config;
}

// A published router, its losses large enough to see.
MoeConfig published(RouterKind kind, std::int64_t experts, const std::function<void(RouterConfig&)>& change = {}) {
  MoeConfig config{.experts = experts, .d_ff = kWidth, .router = router_preset(kind)};
  RouterConfig& router = config.router;
  for (double* coefficient : {&router.balance_loss, &router.device_loss, &router.communication_loss,
                              &router.importance_loss, &router.load_loss, &router.z_loss})
    if (*coefficient > 0) *coefficient = 0.3;
  if (change) change(router);
  return config;
}

std::vector<Case> all_cases() {
  const auto small_groups = [](RouterConfig& r) { r.expert_groups = 4, r.groups_met = 2, r.top_k = 3; };
  std::vector<Case> cases{
      {"top1", softmax_of(1, false, 1.0, BalanceCounts::first)},
      {"top1_dropless", softmax_of(1, false, 0, BalanceCounts::first)},
      {"top2", softmax_of(2, true, 1.0, BalanceCounts::first)},
      {"top2_dropless", softmax_of(2, true, 0, BalanceCounts::all)},
      {"top3", softmax_of(3, true, 0.75, BalanceCounts::all)},
      {"top1_padded", padded(softmax_of(1, false, 1.0, BalanceCounts::first))},
      {"top2_padded", padded(softmax_of(2, true, 1.0, BalanceCounts::first))},
      {"top2_in_halves", overlapped(softmax_of(2, true, 1.0, BalanceCounts::first))},
      {"top3_padded_in_halves", overlapped(padded(softmax_of(3, true, 0.75, BalanceCounts::all)))},
      {"expert_choice_in_halves", overlapped(published(RouterKind::expert_choice, 8))},
      {"switch", published(RouterKind::switch_top_1, 4, [](auto& r) { r.jitter = 0.3; })},
      {"gshard", published(RouterKind::gshard, 4)},
      {"glam", published(RouterKind::glam, 4)},
      {"noisy_top_k", published(RouterKind::noisy_top_k, 8, [](auto& r) { r.top_k = 2; })},
      {"noisy_top_k_of_groups",
       published(RouterKind::noisy_top_k, 4, [](auto& r) { r.top_k = 3, r.balance_scope = BalanceScope::group; })},
      {"mixtral", published(RouterKind::mixtral, 4)},
      {"st_moe", published(RouterKind::st_moe, 4, [](auto& r) { r.capacity_factor = 0.8; })},
      {"expert_choice", published(RouterKind::expert_choice, 4)},
      {"expert_choice_padded", padded(published(RouterKind::expert_choice, 8))},
      {"expert_choice_capped", published(RouterKind::expert_choice, 8, [](auto& r) { r.expert_cap = 3; })},
      {"soft", published(RouterKind::soft, 4)},
      {"deepseek_v2", published(RouterKind::deepseek_v2, 8, small_groups)},
      {"deepseek_v2_of_micro_batches",
       published(RouterKind::deepseek_v2, 8,
                 [&](auto& r) { small_groups(r), r.balance_scope = BalanceScope::micro_batch; })},
      {"deepseek_v2_dropping", published(RouterKind::deepseek_v2, 8,
                                         [&](auto& r) {
                                           small_groups(r);
                                           r.device_capacity = 0.7, r.spared_groups = 0.4;
                                         })},
      {"deepseek_v3", published(RouterKind::deepseek_v3, 8,
                                [](auto& r) { r.expert_groups = 4, r.groups_met = 2, r.group_best = 2, r.top_k = 3; })},
      {"batch_prioritised", published(RouterKind::batch_prioritised, 4)},
      {"batch_prioritised_padded", padded(published(RouterKind::batch_prioritised, 4))},
      {"shared_experts", with_shared(published(RouterKind::deepseek_v2, 8, small_groups))},
      {"ungated_experts", ungated(with_shared(padded(softmax_of(2, true, 1.0, BalanceCounts::first))))},
      {"expert_dropout", with_dropout(softmax_of(2, true, 1.0, BalanceCounts::first))},
      {"expert_dropout_padded_in_halves",
       with_dropout(overlapped(padded(softmax_of(2, true, 1.0, BalanceCounts::first))))},
      {"hash", published(RouterKind::hash, 4)},
      {"hash_of_two", published(RouterKind::hash, 4, [](auto& r) { r.top_k = 2; })},
  };
  for (Case& c : cases) {
    RouterConfig& r = c.config.router;
    if (!c.config.activation) c.config.activation = Activation::swiglu;
    if (r.group_size == 0) r.group_size = 8;
    if (r.top_k == 0) r.top_k = c.config.experts;
    if (r.groups_met == 0) r.groups_met = r.expert_groups;
  }
  return cases;
}
const std::vector<Case> kRouters = all_cases();

const MoeConfig& router_named(const std::string& name) {
  return std::ranges::find(kRouters, name, &Case::name)->config;
}

class MoeRouters : public testing::TestWithParam<std::size_t> {
 protected:
  const MoeConfig& config() const { return kRouters[GetParam()].config; }
};
INSTANTIATE_TEST_SUITE_P(All, MoeRouters, testing::Range(std::size_t{0}, kRouters.size()),
                         [](const auto& info) { return kRouters[info.param].name; });

TEST_P(MoeRouters, MatchTheDefinition) {
  auto self = make_self_group();
  Mesh mesh({}, *self);
  Layer layer(config(), mesh);
  const Tensor x = tokens(16, 0);
  const MoeResult result = layer.moe(Variable(x, true), pass_of(16, 0, 16));
  const test::DefinedMoe expected = definition(config(), rows_of(x, 0, 16), defined(config(), layer));

  for (std::size_t t = 0; t < 16; ++t)
    for (std::int64_t d = 0; d < kDim; ++d)
      // f32 sums of at most 10 products of size 1, and of 8 experts of size 3
      EXPECT_NEAR(result.y_TD.value().data<float>()[std::int64_t(t) * kDim + d], expected.y[t][std::size_t(d)], 2e-5);
  const RouterConfig& router = config().router;
  if (router.choice == Choosing::tokens) {
    EXPECT_NEAR(at(result.stats.balance_1, 0), expected.balance, 1e-5);
  }
  EXPECT_NEAR(at(result.stats.z_1, 0), expected.z, 1e-5 * expected.z);
  // Squares of quotients of sums of 16 f32 numbers.
  EXPECT_NEAR(result.loss_1 ? at(result.loss_1.value(), 0) : 0, expected.loss, 1e-5 * (1 + expected.loss));
  EXPECT_NEAR(at(result.stats.balance_term_1, 0), expected.loss - router.z_loss * expected.z,
              1e-5 * (1 + expected.loss));

  const Tensor& load_PE = result.stats.kept_PE;
  const auto* load = load_PE.data<std::int32_t>();
  EXPECT_EQ(load_PE.shape(), (Shape{config().overlap == Overlap::on ? 2 : 1, config().experts}));
  EXPECT_EQ(std::accumulate(load, load + load_PE.numel(), 0), expected.rows_kept());
  if (router.choice == Choosing::tokens && router.scores == Scoring::softmax && router.top_k < config().experts &&
      !router.noise) {
    for (std::int64_t part = 0; part < load_PE.dim(0); ++part)
      EXPECT_EQ(load[part * config().experts + 2], 0) << "expert 2 was to stay empty";
  }
  if ((router.capacity_factor > 0 || router.device_capacity > 0) && router.choice == Choosing::tokens) {
    EXPECT_LT(expected.rows_kept(), result.stats.choices) << "the case was to drop something";
  }
  if (router.choice == Choosing::experts) {
    EXPECT_EQ(expected.rows_kept(), result.stats.choices);
  }
}

// The sums of a pass that observes, by the definition's choices and logits as loops.
TEST_P(MoeRouters, AreObserved) {
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

  const test::DefinedMoe now = definition(config(), x_TD, defined(config(), layer));
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
      logits.push_back(test::dot(row, gate[e]));
      before.push_back(test::dot(row, gate_before[e]));
      p.push_back(config().router.scores == Scoring::sigmoid ? 1 / (1 + std::exp(-logits[e])) : std::exp(logits[e]));
      largest_logit = std::max(largest_logit, std::abs(logits[e]));
    }
    for (std::size_t e = 0; e < E; ++e) p_E[e] += p[e] / std::accumulate(p.begin(), p.end(), 0.0);
    agreed += test::largest(logits, 1) == test::largest(before, 1);
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
TEST_P(MoeRouters, AreRecorded) {
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

  const test::DefinedMoe expected = definition(config(), rows_of(x, 0, T), defined(config(), layer));
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

TEST_P(MoeRouters, TheScaleMultipliesEveryLossButZ) {
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

// <y, dy> + loss, so that one walk back reaches both. A hashed token has no loss.
Variable total(const Variable& y, const Tensor& dy, const Variable& loss) {
  const double sum = test::dot(y.value(), dy) + (loss ? at(loss.value(), 0) : 0);
  std::vector<Variable> inputs{y};
  if (loss) inputs.push_back(loss);
  return record("total", test::floats({1}, {float(sum)}), inputs, [dy, both = inputs.size() > 1](const Tensor& d) {
    return both ? Grads{dy, d} : Grads{dy};
  });
}

// Central differences of the definition, in double, whose choices so small a step does not change.
TEST_P(MoeRouters, GradientsAreThoseOfTheDefinition) {
  auto self = make_self_group();
  Mesh mesh({}, *self);
  Layer layer(config(), mesh);
  const Variable x(tokens(16, 0), true);
  const MoeResult result = layer.moe(x, pass_of(16, 0, 16));
  const Tensor dy = random({16, kDim}, 23);
  total(result.y_TD, dy, result.loss_1).backward(test::floats({1}, {1}));

  Rows x_TD = rows_of(x.value(), 0, 16);
  test::DefinedParameters w = defined(config(), layer);
  const auto value = [&] {
    const test::DefinedMoe m = definition(config(), x_TD, w);
    double sum = m.loss;
    for (std::size_t t = 0; t < m.y.size(); ++t)
      for (std::size_t d = 0; d < m.y[t].size(); ++d) sum += m.y[t][d] * at(dy, std::int64_t(t * m.y[t].size() + d));
    return sum;
  };
  const auto compare = [&](const std::string& name, Rows& rows, const Tensor& gradient) {
    ASSERT_TRUE(gradient) << name << " got no gradient";
    std::int64_t i = 0;
    for (auto& row : rows)
      for (double& v : row) {
        constexpr double kStepSize = 1e-6;
        const double before = v;
        v = before + kStepSize;
        const double above = value();
        v = before - kStepSize;
        const double expected = (above - value()) / (2 * kStepSize);
        v = before;
        // f32 sums of at most 16 tokens' products; differences of 1e-6 in double are good to 1e-9.
        EXPECT_NEAR(at(gradient, i), expected, 5e-5 * std::max(1.0, std::abs(expected))) << name << ", element " << i;
        ++i;
      }
  };
  compare("x", x_TD, x.grad());
  if (!w.gate.empty()) compare("gate", w.gate, layer.find("gate.weight")->grad());
  if (!w.noise.empty()) compare("noise", w.noise, layer.find("gate.noise_weight")->grad());
  compare("an expert", w.up[0], layer.find("experts." + up_name(config()))->grad());
}

// Experts spread over ranks compute what one rank with all of them computes, on all the ranks' tokens.
struct Result {
  Tensor y, dx;
  double loss = 0;
  Parameters parameters;  // with gradients summed over the ranks
  std::int64_t choices = 0;
};

Result run(const MoeConfig& config, ProcessGroup& world, const ParallelConfig& parallel, std::int64_t all_tokens) {
  Mesh mesh(parallel, world);
  Layer layer(config, mesh);
  const std::int64_t mine = all_tokens / world.size(), first = mine * world.rank();
  const Variable x(tokens(mine, first), true);
  const MoeResult result = layer.moe(x, pass_of(mine, first, all_tokens));
  const Tensor dy = random({all_tokens, kDim}, 23);
  total(result.y_TD, dy.rows(first, first + mine), result.loss_1).backward(test::floats({1}, {1}));
  sum_gradients(layer.parameters, mesh, 1 << 20);
  return {result.y_TD.value(), x.grad(), result.loss_1 ? at(result.loss_1.value(), 0) : 0, layer.parameters,
          result.stats.choices};
}

// The same products, summed over other groupings of the tokens: f32 rounding of sums of up to 64 terms.
constexpr double kRounding = 1e-5;

void expect_parts(const std::vector<Result>& parts, const Result& whole) {
  double loss = 0;
  std::int64_t choices = 0;
  const std::int64_t mine = parts[0].y.dim(0);
  for (std::int64_t r = 0; r < std::ssize(parts); ++r) {
    const Result& part = parts[std::size_t(r)];
    SCOPED_TRACE(text("rank ", r));
    test::expect_near(part.y, whole.y.rows(r * mine, (r + 1) * mine), kRounding);
    test::expect_near(part.dx, whole.dx.rows(r * mine, (r + 1) * mine), kRounding);
    loss += part.loss;
    choices += part.choices;
    for (std::size_t i = 0; i < part.parameters.size(); ++i) {
      const Parameter& p = part.parameters[i];
      test::expect_near(p.variable.grad(), test::slice_of(whole.parameters[i].variable.grad(), p), kRounding);
    }
  }
  EXPECT_NEAR(loss, whole.loss, kRounding * (1 + whole.loss));
  EXPECT_EQ(choices, whole.choices);
}

void expect_layout(const MoeConfig& config, int ranks, const ParallelConfig& parallel, std::int64_t all_tokens) {
  Result whole;
  run_ranks(1, [&](ProcessGroup& self) { whole = run(config, self, {}, all_tokens); });
  std::vector<Result> parts(static_cast<std::size_t>(ranks));
  run_ranks(ranks,
            [&](ProcessGroup& world) { parts[std::size_t(world.rank())] = run(config, world, parallel, all_tokens); });
  expect_parts(parts, whole);
}

// Ranks, those that experts are spread over, and those that each is cut over.
class MoeLayouts : public testing::TestWithParam<std::tuple<int, int, int>> {};
INSTANTIATE_TEST_SUITE_P(Ranks, MoeLayouts,
                         testing::Values(std::tuple{2, 1, 1}, std::tuple{2, 2, 1}, std::tuple{4, 4, 1},
                                         std::tuple{4, 2, 1}, std::tuple{2, 1, 2}, std::tuple{4, 2, 2},
                                         std::tuple{4, 1, 2}));

TEST_P(MoeLayouts, EqualOneRank) {
  const auto [ranks, expert_ranks, expert_tensor_ranks] = GetParam();
  for (const auto& [name, config] : kRouters) {
    SCOPED_TRACE(name);
    expect_layout(config, ranks, {.expert = expert_ranks, .expert_tensor = expert_tensor_ranks},
                  kTokensPerRank * ranks);
  }
}

// Groups of 8 tokens over ranks of 6, 12 and 2: whom an expert takes, and the losses, are of the whole group.
TEST_P(MoeRouters, OfGroupsThatLieOverSeveralTensorRanks) {
  struct Layout {
    int ranks;
    ParallelConfig parallel;
    std::int64_t tokens;
  };
  for (const Dispatch dispatch : {Dispatch::exact, Dispatch::padded})
    for (const Layout& c :
         {Layout{4, {.tensor = 4, .expert = 2}, 24}, Layout{2, {.tensor = 2, .expert = 2}, 24},
          Layout{4, {.tensor = 4, .expert_tensor = 2}, 8}, Layout{4, {.tensor = 2, .expert = 4}, 16}}) {
      SCOPED_TRACE(text(c.ranks, " ranks, ", c.tokens, " tokens"));
      MoeConfig config = this->config();
      config.dispatch = dispatch;
      expect_layout(config, c.ranks, c.parallel, c.tokens);
    }
}

TEST(MicroBatchBalance, CountsTheTokensOfEveryRank) {
  MoeConfig config = router_named("top2");
  config.router.balance_scope = BalanceScope::micro_batch;
  config.router.z_loss = 0;
  expect_layout(config, 2, {.expert = 2}, 16);
  Result whole, by_group;
  run_ranks(1, [&](ProcessGroup& self) { whole = run(config, self, {}, 16); });
  config.router.balance_scope = BalanceScope::group;
  run_ranks(1, [&](ProcessGroup& self) { by_group = run(config, self, {}, 16); });
  EXPECT_GT(std::abs(by_group.loss - whole.loss), 1e-5) << "the two scopes should differ on these tokens";
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
      for (const auto& row : gate) p.push_back(std::exp(test::dot(x[std::size_t(t)], row))), sum += p.back();
      f[std::size_t(std::ranges::max_element(p) - p.begin())] += 1 / double(counted);
      for (std::size_t e = 0; e < 4 && counted_from + t >= first; ++e) P[e] += p[e] / sum / 16;
    }
    return 4 * test::dot(f, P);
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

// Nothing is random when a model is evaluated, and nobody is dropped, but experts that choose still do.
TEST_P(MoeRouters, EvaluateWithoutNoiseOrDrops) {
  auto self = make_self_group();
  Mesh mesh({}, *self);
  Layer layer(config(), mesh);
  NoGrad guard;
  RouterPass pass = pass_of(16, 0, 16);
  pass.capacity = Capacity::unlimited;
  const MoeResult result = layer.moe(Variable(tokens(16, 0)), pass);
  MoeConfig plain = config();
  plain.router.jitter = plain.router.second_threshold = plain.router.device_capacity = plain.expert_dropout = 0;
  if (plain.router.choice == Choosing::tokens) plain.router.capacity_factor = 0;
  test::DefinedParameters w = defined(config(), layer);
  plain.router.noise = false;
  const test::DefinedMoe expected = definition(plain, rows_of(tokens(16, 0), 0, 16), w);
  for (std::size_t t = 0; t < 16; ++t)
    for (std::size_t d = 0; d < kDim; ++d)
      EXPECT_NEAR(at(result.y_TD.value(), std::int64_t(t) * kDim + std::int64_t(d)), expected.y[t][d], 2e-5);
}

TEST(ExpertCapacity, RoundsUpAndIsZeroForDropless) {
  EXPECT_EQ(expert_capacity(1.0, 1, 8, 4), 2);    // Switch: tokens / experts * factor
  EXPECT_EQ(expert_capacity(1.25, 1, 8, 4), 3);   // 2.5
  EXPECT_EQ(expert_capacity(1.0, 2, 64, 8), 16);  // GShard: 2 S / E
  EXPECT_EQ(expert_capacity(1.1, 1, 10, 1), 11);  // 1.1 * 10 is a little more than 11 in binary
  EXPECT_EQ(expert_capacity(0, 2, 64, 8), 0);
}

}  // namespace
}  // namespace switchyard
