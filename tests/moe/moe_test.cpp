#include "moe/moe.h"

#include <gtest/gtest.h>

#include "moe/cases.h"

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

// Central differences of the definition, in double, whose choices so small a step does not change.
TEST_P(MoeRouters, GradientsAreThoseOfTheDefinition) {
  auto self = make_self_group();
  Mesh mesh({}, *self);
  Layer layer(config(), mesh);
  const Variable x(tokens(16, 0), true);
  const MoeResult result = layer.moe(x, pass_of(16, 0, 16));
  const Tensor dy = random({16, kDim}, 23);
  total(result.y_TD, dy, result.loss_1).backward(floats({1}, {1}));

  Rows x_TD = rows_of(x.value(), 0, 16);
  DefinedParameters w = defined(config(), layer);
  const auto value = [&] {
    const DefinedMoe m = definition(config(), x_TD, w);
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
