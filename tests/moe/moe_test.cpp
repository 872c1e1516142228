#include "moe/moe.h"

#include <gtest/gtest.h>

#include <map>

#include "moe/cases.h"
#include "slices.h"

namespace switchyard {
namespace {

using namespace test;

class MoeRouters : public EachRouter {};
INSTANTIATE_TEST_SUITE_P(All, MoeRouters, each_router(), name_of_router);

TEST_P(MoeRouters, MatchTheDefinition) {
  auto self = make_self_group();
  Mesh mesh({}, *self);
  Layer layer(config(), mesh);
  const Tensor x = tokens(16, 0);
  const MoeResult result = layer.moe(Variable(x, true), pass_of(16, 0, 16));
  const DefinedMoe expected = definition(config(), rows_of(x, 0, 16), defined(config(), layer));

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

// The gradients of <y, dy> + loss by the definition: by names of parameters, and of x.
using Gradients = std::map<std::string, std::vector<float>>;

// Central differences, in double, whose choices so small a step does not change.
template <class F>
void differ(std::vector<float>& gradient, Rows& rows, const F& value) {
  constexpr double kStepSize = 1e-6;
  for (auto& row : rows)
    for (double& v : row) {
      const double before = v;
      v = before + kStepSize;
      const double above = value();
      v = before - kStepSize;
      gradient.push_back(static_cast<float>((above - value()) / (2 * kStepSize)));
      v = before;
    }
}

Gradients defined_gradients(const MoeConfig& config, Rows x, DefinedParameters w, const Rows& dy,
                            const DefinedPass& pass) {
  const auto along_dy = [&](const Rows& y) {
    double sum = 0;
    for (std::size_t t = 0; t < y.size(); ++t) sum += dot(y[t], dy[t]);
    return sum;
  };
  const DefinedMoe routed = defined_moe(config, x, w, pass);
  const auto whole = [&] {
    const DefinedMoe m = defined_moe(config, x, w, pass);
    return m.loss + along_dy(m.y);
  };
  const auto outputs = [&] { return along_dy(defined_outputs(config, x, w, routed, pass)); };

  Gradients g;
  differ(g["x"], x, whole);
  differ(g["moe.gate.weight"], w.gate, whole);
  differ(g["moe.gate.noise_weight"], w.noise, whole);
  for (Rows& up : w.up) differ(g["moe.experts." + up_name(config)], up, outputs);
  for (Rows& down : w.down) differ(g["moe.experts.down_proj"], down, outputs);
  differ(g["moe.shared_experts." + up_name(config) + ".weight"], w.shared_up, outputs);
  differ(g["moe.shared_experts.down_proj.weight"], w.shared_down, outputs);
  return g;
}

// f32 sums of at most 16 tokens' products; differences of 1e-6 in double are good to 1e-9.
constexpr double kSlopes = 5e-5;

void expect_parameters(const Parameters& parameters, const Gradients& expected) {
  for (const Parameter& p : parameters) {
    SCOPED_TRACE(p.name);
    ASSERT_TRUE(p.variable.grad()) << "no gradient";
    expect_near(p.variable.grad(), slice_of(floats(p.global_shape, expected.at(p.name)), p), kSlopes);
  }
}

// On one rank, and with groups and experts that lie over four.
TEST_P(MoeRouters, PassesThereAndBackAreThoseOfTheDefinition) {
  constexpr std::int64_t T = 16;
  const Tensor x = tokens(T, 0), dy = random({T, kDim}, 23);
  const auto self = make_self_group();
  Mesh mesh({}, *self);
  Layer layer(config(), mesh);
  const DefinedParameters w = defined(config(), layer);
  const DefinedMoe there = definition(config(), rows_of(x, 0, T), w);
  const Gradients back = defined_gradients(config(), rows_of(x, 0, T), w, rows_of(dy, 0, T), defined_pass(T));

  for (const auto& [ranks, parallel] :
       {std::pair{1, ParallelConfig{}}, std::pair{4, ParallelConfig{.tensor = 2, .expert = 4}}}) {
    SCOPED_TRACE(text(ranks, " ranks"));
    std::vector<Result> parts(static_cast<std::size_t>(ranks));
    run_ranks(ranks, [&, parallel = parallel](ProcessGroup& world) {
      parts[std::size_t(world.rank())] = run(config(), world, parallel, T);
    });
    double loss = 0;
    for (std::int64_t r = 0; r < ranks; ++r) {
      SCOPED_TRACE(text("rank ", r));
      const Result& part = parts[std::size_t(r)];
      const std::int64_t first = T / ranks * r, end = T / ranks * (r + 1);
      for (std::int64_t t = first; t < end; ++t)
        for (std::int64_t d = 0; d < kDim; ++d)
          EXPECT_NEAR(at(part.y, (t - first) * kDim + d), there.y[std::size_t(t)][std::size_t(d)], 2e-5);
      expect_near(part.dx, floats({T, kDim}, back.at("x")).rows(first, end), kSlopes);
      expect_parameters(part.parameters, back);
      loss += part.loss;
    }
    EXPECT_NEAR(loss, there.loss, 1e-5 * (1 + there.loss));
  }
}

// The load of the first half of a batch weighs on the gradient of the second.
TEST(GlobalBalance, PassesThereAndBackAreThoseOfTheDefinition) {
  constexpr std::int64_t T = 16, half = 8;
  for (const char* name : {"top2", "deepseek_v2", "deepseek_v3"}) {
    SCOPED_TRACE(name);
    MoeConfig config = router_named(name);
    config.router.balance_scope = BalanceScope::global;
    const auto self = make_self_group();
    Mesh mesh({}, *self);
    Layer layer(config, mesh);
    const Rows x = rows_of(tokens(T, 0), 0, T);
    const DefinedParameters w = defined(config, layer);
    const Tensor dy = random({T, kDim}, 23);
    const DefinedPass pass = defined_pass(T, 2);
    const Gradients back = defined_gradients(config, x, w, rows_of(dy, 0, T), pass);

    double loss = 0;
    for (const std::int64_t first : {std::int64_t{0}, half}) {
      const Variable own(tokens(half, first), true);
      const MoeResult result = layer.moe(own, pass_of(half, first, T));
      total(result.y_TD, dy.rows(first, first + half), result.loss_1).backward(floats({1}, {1}));
      expect_near(own.grad(), floats({T, kDim}, back.at("x")).rows(first, first + half), kSlopes);
      loss += at(result.loss_1.value(), 0);
    }
    expect_parameters(layer.parameters, back);
    const double expected = defined_moe(config, x, w, pass).loss;
    EXPECT_NEAR(loss, expected, 1e-5 * (1 + expected));
    EXPECT_GT(std::abs(expected - definition(config, x, w).loss), 1e-4) << "halves and the whole should differ";
  }
}

// Generation's windows: each expert takes a token at least, and where that is too many for the cap there is none.
TEST(Windows, AreGroupsOfAnyLength) {
  MoeConfig config = router_named("expert_choice_capped");
  const auto self = make_self_group();
  Mesh mesh({}, *self);
  Layer layer(config, mesh);
  NoGrad guard;
  for (const std::int64_t window : {1, 2, 3, 5, 8}) {
    SCOPED_TRACE(window);
    RouterPass pass = pass_of(window, 0, window);
    pass.capacity = Capacity::unlimited;
    pass.window = window;
    const Tensor y = layer.moe(Variable(tokens(window, 0)), pass).y_TD.value();
    config.router.group_size = window;
    config.router.expert_cap = window == 3 || window == 8 ? 3 : 0;  // five tokens have 16 takers, two of each expert
    const DefinedMoe expected = definition(config, rows_of(tokens(window, 0), 0, window), defined(config, layer));
    for (std::int64_t t = 0; t < window; ++t)
      for (std::int64_t d = 0; d < kDim; ++d)
        EXPECT_NEAR(at(y, t * kDim + d), expected.y[std::size_t(t)][std::size_t(d)], 2e-5);
  }
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
  DefinedParameters w = defined(config(), layer);
  plain.router.noise = false;
  const DefinedMoe expected = definition(plain, rows_of(tokens(16, 0), 0, 16), w);
  for (std::size_t t = 0; t < 16; ++t)
    for (std::size_t d = 0; d < kDim; ++d)
      EXPECT_NEAR(at(result.y_TD.value(), std::int64_t(t) * kDim + std::int64_t(d)), expected.y[t][d], 2e-5);
}

}  // namespace
}  // namespace switchyard
