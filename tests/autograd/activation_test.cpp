#include <gtest/gtest.h>

#include "autograd/ops.h"
#include "grad_check.h"

namespace switchyard {
namespace {

using test::check_gradients, test::random;

TEST(Activate, Gradients) {
  for (Activation kind : {Activation::swiglu, Activation::geglu, Activation::gelu})
    check_gradients({Variable(random({3, 10}, 1, 2), true)}, [kind](auto& in) { return activate(in[0], kind); });
}

// Away from the kink at 0, which a central difference of step 0.01 would straddle.
TEST(Activate, ReluGradients) {
  Tensor x = random({3, 10}, 1);
  for (std::int64_t i = 0; i < x.numel(); ++i) x.data<float>()[i] += x.data<float>()[i] > 0 ? 0.1f : -0.1f;
  check_gradients({Variable(x, true)}, [](auto& in) { return activate(in[0], Activation::relu); });
}

TEST(Activate, HalvesTheWidthWhereGated) {
  const Variable x(random({3, 10}, 1));
  EXPECT_EQ(activate(x, Activation::swiglu).shape(), (Shape{3, 5}));
  EXPECT_EQ(activate(x, Activation::relu).shape(), (Shape{3, 10}));
  EXPECT_EQ(activate(Variable(Tensor::empty({0, 6}, DType::bf16, Device{})), Activation::geglu).shape(), (Shape{0, 3}));
  EXPECT_THROW(activate(Variable(random({3, 5}, 1)), Activation::swiglu), Error);
}

}  // namespace
}  // namespace switchyard
