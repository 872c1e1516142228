#include "moe/moe.h"

#include <gtest/gtest.h>

#include "dist/gradients.h"
#include "grad_check.h"
#include "moe/definition.h"
#include "slices.h"

namespace switchyard {
namespace {

using test::at, test::random, test::Rows;

constexpr std::int64_t kDim = 6, kWidth = 6, kTokensPerRank = 8;

// The experts' weights and a router that never chooses expert 2 and mostly chooses expert 0: an empty expert, uneven
// loads and, with a capacity, drops.
struct Layer {
  ParameterMaker make{1, Device{}};
  Moe moe;
  Parameters parameters;  // router, gate_up, down

  Layer(const MoeConfig& config, Mesh& mesh)
      : moe(config, kDim, Activation::swiglu, "moe", {.std = 0.5}, {.std = 0.5}, mesh, make), parameters(make.take()) {
    Variable& router = parameters[0].variable;
    const Tensor values = random(router.shape(), 3);
    std::copy_n(values.data<float>(), values.numel(), router.value().data<float>());
    // Feature 0 of every token is 1 (see tokens()), so column 0 is a bias.
    router.value().data<float>()[0 * kDim] = 2;
    router.value().data<float>()[2 * kDim] = -50;
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

Rows rows_of(const Tensor& t, std::int64_t first, std::int64_t count) {
  const std::int64_t width = t.dim(-1);
  Rows rows;
  for (std::int64_t r = first; r < first + count; ++r) {
    rows.emplace_back();
    for (std::int64_t d = 0; d < width; ++d) rows.back().push_back(at(t, r * width + d));
  }
  return rows;
}

test::DefinedMoe definition(const MoeConfig& config, const Layer& layer, const Tensor& x) {
  std::vector<Rows> up, down;
  for (std::int64_t e = 0; e < config.experts; ++e) {
    up.push_back(rows_of(layer.parameters[1].variable.value(), e * 2 * kWidth, 2 * kWidth));
    down.push_back(rows_of(layer.parameters[2].variable.value(), e * kDim, kDim));
  }
  return test::defined_moe(config, rows_of(x, 0, x.dim(0)),
                           rows_of(layer.parameters[0].variable.value(), 0, config.experts), up, down);
}

MoeConfig config_of(std::int64_t top_k, bool renormalise, double capacity_factor, BalanceCounts counts) {
  return {.experts = 4,
          .top_k = top_k,
          .d_ff = kWidth,
          .renormalise = renormalise,
          .capacity_factor = capacity_factor,
          .group_size = 8,
          .balance_loss = 0.3,
          .balance_counts = counts,
          .z_loss = 0.2};
}

MoeConfig padded(MoeConfig config) {
  config.dispatch = Dispatch::padded;
  return config;
}

// In halves, of one group each where there are 8 tokens.
MoeConfig overlapped(MoeConfig config) {
  config.group_size = 4;
  config.overlap = Overlap::on;
  return config;
}

// Switch top-1 with and without drops, GShard/GLaM top-2, Mixtral, and three choices; then with all rows that experts
// own, the empty ones too; then in halves.
const std::vector<MoeConfig> kRouters{
    config_of(1, false, 1.0, BalanceCounts::first),
    config_of(1, false, 0, BalanceCounts::first),
    config_of(2, true, 1.0, BalanceCounts::first),
    config_of(2, true, 0, BalanceCounts::all),
    config_of(3, true, 0.75, BalanceCounts::all),
    padded(config_of(1, false, 1.0, BalanceCounts::first)),
    padded(config_of(2, true, 1.0, BalanceCounts::first)),
    overlapped(config_of(2, true, 1.0, BalanceCounts::first)),
    overlapped(padded(config_of(3, true, 0.75, BalanceCounts::all))),
};

class MoeRouters : public testing::TestWithParam<std::size_t> {
 protected:
  const MoeConfig& config() const { return kRouters[GetParam()]; }
};
INSTANTIATE_TEST_SUITE_P(All, MoeRouters, testing::Range(std::size_t{0}, kRouters.size()));

TEST_P(MoeRouters, MatchTheDefinition) {
  auto self = make_self_group();
  Mesh mesh({}, *self);
  const Layer layer(config(), mesh);
  const Tensor x = tokens(16, 0);
  const MoeResult result = layer.moe(Variable(x, true), Capacity::enforced, 1.0f / 16);
  const test::DefinedMoe expected = definition(config(), layer, x);

  std::int64_t kept = 0;
  for (std::size_t t = 0; t < 16; ++t) {
    for (std::int64_t d = 0; d < kDim; ++d)
      // f32 sums of at most 10 products of size 1
      EXPECT_NEAR(result.y_TD.value().data<float>()[std::int64_t(t) * kDim + d], expected.y[t][std::size_t(d)], 1e-5);
    for (const bool k : expected.kept[t]) kept += k;
  }
  EXPECT_NEAR(at(result.stats.balance_1, 0), expected.balance, 1e-5);
  EXPECT_NEAR(at(result.stats.z_1, 0), expected.z, 1e-5 * expected.z);
  EXPECT_NEAR(at(result.loss_1.value(), 0), 0.3 * expected.balance + 0.2 * expected.z, 1e-5 * (1 + expected.z));

  const Tensor& load_PE = result.stats.kept_PE;
  const auto* load = load_PE.data<std::int32_t>();
  EXPECT_EQ(load_PE.shape(), (Shape{config().overlap == Overlap::on ? 2 : 1, 4}));
  EXPECT_EQ(std::accumulate(load, load + load_PE.numel(), 0), kept);
  for (std::int64_t part = 0; part < load_PE.dim(0); ++part)
    EXPECT_EQ(load[part * 4 + 2], 0) << "expert 2 was to stay empty";
  if (config().capacity_factor > 0) {
    EXPECT_LT(kept, 16 * config().top_k) << "the case was to drop something";
  }
}

TEST_P(MoeRouters, Gradients) {
  auto self = make_self_group();
  Mesh mesh({}, *self);
  const Layer layer(config(), mesh);
  std::vector<Variable> inputs{Variable(tokens(8, 0), true)};
  for (const Parameter& p : layer.parameters) inputs.push_back(p.variable);
  // The step is small, lest a choice changes.
  test::check_gradients(
      inputs, [&](auto& in) { return layer.moe(in[0], Capacity::enforced, 1.0f / 8).y_TD; }, 2e-3, 5e-3);
}

TEST_P(MoeRouters, GradientsOfTheLosses) {
  auto self = make_self_group();
  Mesh mesh({}, *self);
  const Layer layer(config(), mesh);
  test::check_gradients(
      {Variable(tokens(8, 0), true), layer.parameters[0].variable},
      [&](auto& in) { return layer.moe(in[0], Capacity::enforced, 1.0f / 8).loss_1; }, 2e-3, 5e-3);
}

// Experts spread over ranks compute what one rank with all of them computes, on all the ranks' tokens.
struct Result {
  Tensor y, dx;
  double loss = 0;
  Parameters parameters;  // with gradients summed over the ranks
};

// <y, dy> + loss, so that one walk back reaches both.
Variable total(const Variable& y, const Tensor& dy, const Variable& loss) {
  const Tensor value = test::floats({1}, {float(test::dot(y.value(), dy) + at(loss.value(), 0))});
  return record("total", value, {y, loss}, [dy](const Tensor& d) -> Grads { return {dy, d}; });
}

Result run(const MoeConfig& config, ProcessGroup& world, const ParallelConfig& parallel, std::int64_t all_tokens) {
  Mesh mesh(parallel, world);
  Layer layer(config, mesh);
  const std::int64_t mine = all_tokens / world.size(), first = mine * world.rank();
  const Variable x(tokens(mine, first), true);
  const MoeResult result = layer.moe(x, Capacity::enforced, 1.0f / float(all_tokens));
  const Tensor dy = random({all_tokens, kDim}, 23);
  total(result.y_TD, dy.rows(first, first + mine), result.loss_1).backward(test::floats({1}, {1}));
  sum_gradients(layer.parameters, mesh, 1 << 20);
  return {result.y_TD.value(), x.grad(), at(result.loss_1.value(), 0), layer.parameters};
}

// Ranks, those that experts are spread over, and those that each is cut over.
class MoeLayouts : public testing::TestWithParam<std::tuple<int, int, int>> {};
INSTANTIATE_TEST_SUITE_P(Ranks, MoeLayouts,
                         testing::Values(std::tuple{2, 1, 1}, std::tuple{2, 2, 1}, std::tuple{4, 4, 1},
                                         std::tuple{4, 2, 1}, std::tuple{2, 1, 2}, std::tuple{4, 2, 2},
                                         std::tuple{4, 1, 2}));

TEST_P(MoeLayouts, EqualOneRank) {
  const auto [ranks, expert_ranks, expert_tensor_ranks] = GetParam();
  for (const MoeConfig& config : kRouters) {
    const std::int64_t all = kTokensPerRank * ranks;
    Result whole;
    run_ranks(1, [&](ProcessGroup& self) { whole = run(config, self, {}, all); });
    std::vector<Result> parts(static_cast<std::size_t>(ranks));
    const ParallelConfig parallel{.expert = expert_ranks, .expert_tensor = expert_tensor_ranks};
    run_ranks(ranks,
              [&](ProcessGroup& world) { parts[std::size_t(world.rank())] = run(config, world, parallel, all); });
    // The same products, summed over other groupings of the tokens: f32 rounding of sums of up to 64 terms.
    constexpr double kRounding = 5e-6;
    double loss = 0;
    for (int r = 0; r < ranks; ++r) {
      const Result& part = parts[std::size_t(r)];
      test::expect_near(part.y, whole.y.rows(r * kTokensPerRank, (r + 1) * kTokensPerRank), kRounding);
      test::expect_near(part.dx, whole.dx.rows(r * kTokensPerRank, (r + 1) * kTokensPerRank), kRounding);
      loss += part.loss;
      for (std::size_t i = 0; i < part.parameters.size(); ++i) {
        const Parameter& p = part.parameters[i];
        const Tensor& expected = whole.parameters[i].variable.grad();
        test::expect_near(p.variable.grad(), test::slice_of(expected, p), kRounding);
      }
    }
    EXPECT_NEAR(loss, whole.loss, kRounding * (1 + whole.loss));
  }
}

// Groups of 8 tokens over ranks of 6, 12 and 2: an expert's capacity, and the balance loss, are of the whole group.
TEST(RoutingGroups, LieOverSeveralTensorRanks) {
  struct Case {
    int ranks;
    ParallelConfig parallel;
    std::int64_t tokens;
  };
  for (const Dispatch dispatch : {Dispatch::exact, Dispatch::padded})
    for (const Case& c : {Case{4, {.tensor = 4, .expert = 2}, 24}, Case{2, {.tensor = 2, .expert = 2}, 24},
                          Case{4, {.tensor = 4, .expert_tensor = 2}, 8}, Case{4, {.tensor = 2, .expert = 4}, 16}}) {
      MoeConfig config = kRouters[2];
      config.dispatch = dispatch;
      config.capacity_factor = 0.8;
      Result whole;
      run_ranks(1, [&](ProcessGroup& self) { whole = run(config, self, {}, c.tokens); });
      std::vector<Result> parts(static_cast<std::size_t>(c.ranks));
      run_ranks(c.ranks, [&](ProcessGroup& world) {
        parts[std::size_t(world.rank())] = run(config, world, c.parallel, c.tokens);
      });
      constexpr double kRounding = 5e-6;  // as above
      const std::int64_t mine = c.tokens / c.ranks;
      double loss = 0;
      for (int r = 0; r < c.ranks; ++r) {
        const Result& part = parts[std::size_t(r)];
        SCOPED_TRACE(text("rank ", r, " of ", c.ranks, ", ", c.tokens, " tokens"));
        test::expect_near(part.y, whole.y.rows(r * mine, (r + 1) * mine), kRounding);
        test::expect_near(part.dx, whole.dx.rows(r * mine, (r + 1) * mine), kRounding);
        for (std::size_t i = 0; i < part.parameters.size(); ++i)
          test::expect_near(part.parameters[i].variable.grad(),
                            test::slice_of(whole.parameters[i].variable.grad(), part.parameters[i]), kRounding);
        loss += part.loss;
      }
      EXPECT_NEAR(loss, whole.loss, kRounding * (1 + whole.loss));
    }
}

TEST(MicroBatchBalance, CountsTheTokensOfEveryRank) {
  MoeConfig config = kRouters[2];
  config.balance_scope = BalanceScope::micro_batch;
  config.z_loss = 0;
  Result whole;
  run_ranks(1, [&](ProcessGroup& self) { whole = run(config, self, {}, 16); });
  std::vector<Result> parts(2);
  run_ranks(2, [&](ProcessGroup& world) { parts[std::size_t(world.rank())] = run(config, world, {.expert = 2}, 16); });
  EXPECT_NEAR(parts[0].loss + parts[1].loss, whole.loss, 1e-6);

  config.balance_scope = BalanceScope::group;
  Result by_group;
  run_ranks(1, [&](ProcessGroup& self) { by_group = run(config, self, {}, 16); });
  EXPECT_GT(std::abs(by_group.loss - whole.loss), 1e-5) << "the two scopes should differ on these tokens";
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
