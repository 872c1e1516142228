#include <gtest/gtest.h>

#include "autograd/ops.h"
#include "grad_check.h"

namespace switchyard {
namespace {

using test::check_gradients, test::expect_near, test::ints, test::random;

// Three tokens with two choices each; one choice is dropped, so that the last of six rows has no token.
const Tensor kSlot = ints({3, 2}, {4, 0, 1, -1, 3, 2});
const Tensor kToken = ints({6}, {0, 1, 2, 2, 0, -1});

TEST(DispatchRows, Gradients) {
  check_gradients({Variable(random({3, 4}, 1), true)}, [](auto& in) { return dispatch_rows(in[0], kToken, kSlot); });
}

TEST(CombineRows, Gradients) {
  check_gradients({Variable(random({6, 4}, 1), true), Variable(random({3, 2}, 2), true)},
                  [](auto& in) { return combine_rows(in[0], in[1], kSlot); });
}

TEST(CombineRows, KeepsItsRowsForLearntWeightsAlone) {
  for (bool learnt : {false, true}) {
    const Tensor x = random({6, 4}, 1);
    Variable rows(x, true);
    const Variable y = combine_rows(rows, Variable(random({3, 2}, 2), learnt), kSlot);
    rows.value() = {};  // what is left is what backward captured
    EXPECT_EQ(x.sole_owner(), !learnt);
  }
}

TEST(CombineRows, GradientsWithConstantWeights) {
  check_gradients({Variable(random({6, 4}, 1), true), Variable(random({3, 2}, 2))},
                  [](auto& in) { return combine_rows(in[0], in[1], kSlot); });
}

// With weights that sum to one over the kept choices, and no expert in between, the tokens come back.
TEST(Rows, DispatchThenCombineIsTheIdentity) {
  const Variable x(random({3, 4}, 1)), weight(test::floats({3, 2}, {0.25f, 0.75f, 1, 0, 0.5f, 0.5f}));
  expect_near(combine_rows(dispatch_rows(x, kToken, kSlot), weight, kSlot).value(), x.value(), 1e-6);
}

TEST(PermuteRows, Gradients) {
  const Tensor index = ints({4}, {2, 0, 3, 1}), inverse = ints({4}, {1, 3, 0, 2});
  check_gradients({Variable(random({4, 3}, 1), true)}, [&](auto& in) { return permute_rows(in[0], index, inverse); });
  const Variable x(random({4, 3}, 1));
  expect_near(permute_rows(permute_rows(x, index, inverse), inverse, index).value(), x.value(), 0);
}

TEST(Rows, NoTokensRecordTheSameNodes) {
  Variable x(Tensor::empty({0, 4}, DType::f32, Device{}), true),
      weight(Tensor::empty({0, 2}, DType::f32, Device{}), true);
  const Tensor slot = ints({0, 2}, {}), token = ints({0}, {});
  Variable y = combine_rows(dispatch_rows(x, token, slot), weight, slot);
  EXPECT_TRUE(y.requires_grad());
  y.backward(Tensor::empty({0, 4}, DType::f32, Device{}));
  EXPECT_TRUE(x.grad());
  EXPECT_TRUE(weight.grad());
}

TEST(Rows, RefuseWhatDoesNotFit) {
  const Variable x(random({3, 4}, 1)), weight(random({3, 2}, 2));
  EXPECT_THROW(dispatch_rows(Variable(random({2, 4}, 1)), kToken, kSlot), Error);
  EXPECT_THROW(dispatch_rows(x, kToken, random({3, 2}, 1)), Error);
  EXPECT_THROW(combine_rows(x, Variable(random({2, 2}, 1)), kSlot), Error);
  EXPECT_THROW(permute_rows(x, ints({3}, {0, 1, 2}), ints({2}, {0, 1})), Error);
}

}  // namespace
}  // namespace switchyard
