#include <gtest/gtest.h>

#include "autograd/ops.h"
#include "grad_check.h"

namespace switchyard {
namespace {

using test::check_gradients, test::random;

TEST(RmsNorm, Gradients) {
  check_gradients({Variable(random({3, 8}, 1), true), Variable(random({8}, 2), true)},
                  [](auto& in) { return rms_norm(in[0], in[1], 1e-5f); });
}

TEST(RmsNorm, OfNoRowsGivesZeroWeightGradient) {
  Variable x(Tensor::empty({0, 4}, DType::bf16, Device{}), true), w(random({4}, 1), true);
  Variable y = rms_norm(x, w, 1e-5f);
  EXPECT_TRUE(y.requires_grad());
  y.backward(Tensor::empty({0, 4}, DType::bf16, Device{}));
  test::expect_near(w.grad(), test::floats({4}, {0, 0, 0, 0}), 0);
  EXPECT_EQ(x.grad().shape(), (Shape{0, 4}));
}

TEST(RmsNorm, KeepsTheTypeOfItsRowsAndAnF32WeightGradient) {
  Variable x(cast(random({3, 8}, 1), DType::bf16), true), w(random({8}, 2), true);
  Variable y = rms_norm(x, w, 1e-5f);
  EXPECT_EQ(y.dtype(), DType::bf16);
  y.backward(cast(random({3, 8}, 3), DType::bf16));
  EXPECT_EQ(x.grad().dtype(), DType::bf16);
  EXPECT_EQ(w.grad().dtype(), DType::f32);
}

TEST(RmsNorm, SaysWhichShapesDoNotFit) {
  try {
    rms_norm(Variable(random({3, 8}, 1)), Variable(random({7}, 2)), 1e-5f);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("rms_norm: x (3, 8) does not fit w (7)"), std::string::npos)
        << error.what();
  }
}

std::vector<Variable> rows_and_gain() {
  return {Variable(random({3, 8}, 1), true), Variable(random({3, 8}, 2), true), Variable(random({8}, 3), true)};
}

TEST(AddRmsNorm, GradientsOfBothResultsAndOfEitherAlone) {
  const auto both = [](auto& in) {
    const auto [sum, normed] = add_rms_norm(in[0], in[1], in[2], 1e-5f);
    return add(sum, times(normed, 2));
  };
  check_gradients(rows_and_gain(), both);
  const auto normed = [](auto& in) { return add_rms_norm(in[0], in[1], in[2], 1e-5f).normed; };
  check_gradients(rows_and_gain(), normed);
  const auto sum = [](auto& in) { return add_rms_norm(in[0], in[1], in[2], 1e-5f).sum; };
  std::vector<Variable> in = rows_and_gain();
  in[2] = Variable(in[2].value());  // no gradient comes to the gain
  check_gradients(in, sum);
}

TEST(AddRmsNorm, OfOneTensorTwice) {
  check_gradients({Variable(random({3, 8}, 1), true), Variable(random({8}, 2), true)}, [](auto& in) {
    const auto [sum, normed] = add_rms_norm(in[0], in[0], in[1], 1e-5f);
    return add(sum, normed);
  });
}

// As the blocks of a model chain them: the gradients have the bits that add and rms_norm give.
TEST(AddRmsNorm, GivesTheBitsOfAddAndRmsNorm) {
  for (DType dtype : {DType::f32, DType::bf16}) {
    const auto run = [dtype](const std::function<AddNorm(const Variable&, const Variable&, const Variable&)>& norm) {
      const Variable x(cast(random({5, 16}, 1), dtype), true), y(cast(random({5, 16}, 2), dtype), true),
          w(random({16}, 3), true);
      const AddNorm first = norm(x, y, w), second = norm(first.sum, times(first.normed, 0.5f), w);
      Variable out = add(second.sum, second.normed);
      out.backward(cast(random({5, 16}, 4), dtype));
      return std::vector{cast(out.value(), DType::f32), cast(x.grad(), DType::f32), cast(y.grad(), DType::f32),
                         w.grad()};
    };
    const auto fused = run([](const auto& a, const auto& b, const auto& w) { return add_rms_norm(a, b, w, 1e-5f); });
    const auto apart = run([](const auto& a, const auto& b, const auto& w) {
      const Variable sum = add(a, b);
      return AddNorm{sum, rms_norm(sum, w, 1e-5f)};
    });
    for (std::size_t i = 0; i < fused.size(); ++i) test::expect_near(fused[i], apart[i], 0);
  }
}

// The inputs share one gradient, which nobody may change under the other.
TEST(AddRmsNorm, AddsToTheGradientOfOneInputAlone) {
  const Variable a(random({2, 4}, 1), true), b(random({2, 4}, 2), true), w(random({4}, 3), true);
  const auto [sum, normed] = add_rms_norm(a, b, w, 1e-5f);
  const Tensor dy = test::floats({2, 4}, {1, 2, 3, 4, 5, 6, 7, 8});
  add(sum, a).backward(dy);
  test::expect_near(a.grad(), test::floats({2, 4}, {2, 4, 6, 8, 10, 12, 14, 16}), 0);
  test::expect_near(b.grad(), dy, 0);
  EXPECT_FALSE(w.grad());
}

TEST(AddRmsNorm, SaysWhichShapesDoNotFit) {
  const Variable x(random({3, 8}, 1));
  EXPECT_THROW(add_rms_norm(x, Variable(random({2, 8}, 1)), Variable(random({8}, 2)), 1e-5f), Error);
  EXPECT_THROW(add_rms_norm(x, Variable(cast(random({3, 8}, 1), DType::bf16)), Variable(random({8}, 2)), 1e-5f), Error);
  EXPECT_THROW(add_rms_norm(x, x, Variable(random({7}, 2)), 1e-5f), Error);
}

}  // namespace
}  // namespace switchyard
