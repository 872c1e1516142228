#include "autograd/ops.h"

#include <gtest/gtest.h>

#include "grad_check.h"

namespace switchyard {
namespace {

// d/dx of sum(dy x) + loss, whatever dy is.
TEST(WithLoss, BackwardGoesThroughTheLossToo) {
  Variable x(test::random({3, 4}, 1), true), w(test::floats({1}, {5}), true);
  const Variable loss = times(w, 2);
  const Tensor dy = test::random({3, 4}, 2);
  Variable y = with_loss(x, loss);
  test::expect_near(y.value(), x.value(), 0);
  y.backward(dy);
  test::expect_near(x.grad(), dy, 0);
  EXPECT_EQ(test::at(w.grad(), 0), 2);
}

TEST(WithLoss, RefusesWhatIsNotOneNumber) {
  EXPECT_THROW(with_loss(Variable(test::random({3}, 1)), Variable(test::random({2}, 2))), Error);
}

}  // namespace
}  // namespace switchyard
