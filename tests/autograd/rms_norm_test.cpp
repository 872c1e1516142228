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

}  // namespace
}  // namespace switchyard
