#include "optim/adamw.h"

#include <cmath>
#include <cstring>

#include "autograd/ops.h"
#include "grad_check.h"

namespace switchyard {
namespace {

using test::at, test::floats, test::random;

Parameter parameter(const char* name, Tensor value, Decay decay = Decay::yes) {
  const Shape shape = value.shape();
  return {.name = name, .variable = Variable(std::move(value), true), .global_shape = shape, .decay = decay};
}

OptimConfig config() {
  OptimConfig c;
  c.beta1 = 0.5;
  c.beta2 = 0.75;
  c.eps = 0.5;
  c.weight_decay = 0.25;
  return c;
}

const Tensor kOne = floats({1}, {1});

// g = 2 twice. Step 1: m = 1, v = 1, both unbiased 2 and 4: 2 / (2 + 1/2) = 0.8. Step 2 has the same unbiased moments
// (m = 1.5 / 0.75, v = 1.75 / 0.4375). With lr 0.1: p falls by 0.08, and by 0.025 p more where it decays.
TEST(AdamW, TwoStepsByHand) {
  Parameters parameters{parameter("decays", floats({1}, {1})), parameter("stays", floats({1}, {1}), Decay::no)};
  AdamW adamw(parameters, config());
  for (int step = 0; step < 2; ++step) {
    for (Parameter& p : parameters) {
      p.variable.zero_grad();
      p.variable.accumulate(floats({1}, {2}));
    }
    adamw.step(0.1, kOne);
  }
  EXPECT_EQ(adamw.steps(), 2);
  EXPECT_NEAR(at(parameters[0].variable.value(), 0), (1 - 0.105) * (1 - 0.025) - 0.08, 1e-6);
  EXPECT_NEAR(at(parameters[1].variable.value(), 0), 1 - 0.16, 1e-6);
  EXPECT_NEAR(at(adamw.states()[0].value, 0), 1.5, 1e-6);
  EXPECT_NEAR(at(adamw.states()[1].value, 0), 1.75, 1e-6);
}

TEST(AdamW, MultipliesGradientsByTheScaleOnTheDevice) {
  Parameters a{parameter("p", random({4, 5}, 1))}, b{parameter("p", random({4, 5}, 1))};
  AdamW first(a, config()), second(b, config());
  a[0].variable.accumulate(random({4, 5}, 2));
  b[0].variable.accumulate(random({4, 5}, 2, 0.25f));
  first.step(0.1, floats({1}, {0.25f}));
  second.step(0.1, kOne);
  test::expect_near(a[0].variable.value(), b[0].variable.value(), 0);  // a power of two scales exactly
}

// The same as a gradient of zeros, on this step and on later ones: ranks without work stay equal to their peers.
TEST(AdamW, AMissingGradientCountsAsZeros) {
  Parameters a{parameter("p", random({4, 5}, 1))}, b{parameter("p", random({4, 5}, 1))};
  AdamW first(a, config()), second(b, config());
  for (int step = 0; step < 3; ++step) {
    a[0].variable.zero_grad();
    b[0].variable.zero_grad();
    const Tensor gradient = step == 1 ? Tensor::zeros({4, 5}, DType::f32, Device{}) : random({4, 5}, 2);
    a[0].variable.accumulate(gradient);
    if (step != 1) b[0].variable.accumulate(gradient);
    first.step(0.1, kOne);
    second.step(0.1, kOne);
  }
  test::expect_near(a[0].variable.value(), b[0].variable.value(), 0);
  for (std::size_t i = 0; i < 2; ++i) test::expect_near(first.states()[i].value, second.states()[i].value, 0);
}

TEST(AdamW, ProductsReadTheNewWeights) {
  Parameters parameters{parameter("w", random({32, 16}, 1))};
  Variable& w = parameters[0].variable;
  const Variable x(cast(random({8, 16}, 2), DType::bf16));
  linear(x, w);  // makes the compute copy
  AdamW adamw(parameters, config());
  w.accumulate(random({32, 16}, 3));
  adamw.step(0.1, kOne);
  test::expect_near(linear(x, w).value(), linear(x, Variable(w.value())).value(), 0);
}

TEST(AdamW, ListsItsStatesCutLikeTheParameters) {
  Parameters parameters{parameter("a", random({2, 3}, 1)), parameter("b", random({4, 2, 3}, 1))};
  parameters[1].global_shape = {8, 2, 3};
  parameters[1].boxes = {{{4}, {4, 2, 3}}};
  parameters[1].replicas = Replicas::expert_data;
  const AdamW adamw(parameters, config());
  const auto states = adamw.states();
  ASSERT_EQ(states.size(), 4u);
  EXPECT_EQ(states[0].name, "optimizer.exp_avg.a");
  EXPECT_EQ(states[1].name, "optimizer.exp_avg_sq.a");
  EXPECT_EQ(states[2].name, "optimizer.exp_avg.b");
  EXPECT_EQ(states[3].name, "optimizer.exp_avg_sq.b");
  EXPECT_EQ(states[3].value.shape(), (Shape{4, 2, 3}));
  EXPECT_EQ(states[3].global_shape, (Shape{8, 2, 3}));
  EXPECT_EQ(states[3].boxes, parameters[1].boxes);
  EXPECT_EQ(states[3].replicas, Replicas::expert_data);
  for (const OptimizerState& s : states) test::expect_near(s.value, zeros_like(s.value), 0);
}

// What a checkpoint does: parameters, states and the step count carried into a fresh optimizer give the same bits.
TEST(AdamW, ResumesBitForBit) {
  const auto train = [](Parameters& p, AdamW& adamw, unsigned from, unsigned to) {
    for (unsigned step = from; step < to; ++step) {
      p[0].variable.zero_grad();
      p[0].variable.accumulate(random({50}, 10 + step));
      adamw.step(0.01, kOne);
    }
  };
  Parameters straight{parameter("p", random({50}, 1))};
  AdamW whole(straight, config());
  train(straight, whole, 0, 3);
  Parameters resumed{parameter("p", empty_like(straight[0].variable.value()))};
  kernels(Device{}).copy(resumed[0].variable.value(), straight[0].variable.value());
  AdamW rest(resumed, config());
  for (std::size_t i = 0; i < 2; ++i) {
    Tensor state = rest.states()[i].value;
    kernels(Device{}).copy(state, whole.states()[i].value);
  }
  rest.set_steps(whole.steps());
  train(straight, whole, 3, 6);
  train(resumed, rest, 3, 6);
  test::expect_near(resumed[0].variable.value(), straight[0].variable.value(), 0);
}

TEST(AdamW, RefusesAMasterThatIsNotF32) {
  try {
    AdamW({parameter("p", cast(random({4}, 1), DType::bf16))}, config());
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("p is bf16, not an f32 master"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace switchyard
