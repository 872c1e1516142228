#include <gtest/gtest.h>

#include "autograd/ops.h"
#include "grad_check.h"

namespace switchyard {
namespace {

using test::check_gradients, test::ints, test::random;

TEST(Embedding, GradientsOfRepeatedTokens) {
  const Tensor ids = ints({5}, {2, 0, 2, -1, 2});
  check_gradients({Variable(random({4, 3}, 1), true)}, [&](auto& in) { return embedding(in[0], ids, DType::f32); });
}

TEST(Embedding, GivesRowsOfTheTypeAskedForAndAnF32Gradient) {
  Variable table(random({4, 3}, 1), true);
  Variable y = embedding(table, ints({2}, {3, 3}), DType::bf16);
  EXPECT_EQ(y.dtype(), DType::bf16);
  for (std::int64_t i = 0; i < 6; ++i)
    EXPECT_EQ(test::at(y.value(), i), static_cast<float>(bf16(table.value().data<float>()[9 + i % 3])));
  y.backward(cast(test::floats({2, 3}, {1, 2, 3, 10, 20, 30}), DType::bf16));
  test::expect_near(table.grad(), test::floats({4, 3}, {0, 0, 0, 0, 0, 0, 0, 0, 0, 11, 22, 33}), 0);
}

TEST(Embedding, OfNoTokensGivesAZeroGradient) {
  Variable table(random({4, 3}, 1), true);
  embedding(table, ints({0}, {}), DType::f32).backward(Tensor::empty({0, 3}, DType::f32, Device{}));
  test::expect_near(table.grad(), Tensor::zeros({4, 3}, DType::f32, Device{}), 0);
}

// Rounded before it is read or on the way: the same rows and the same f32 gradient.
TEST(Embedding, ReadsATableOfTheTypeAskedForToo) {
  Variable table(random({4, 3}, 1), true), rounded(cast(table.value(), DType::bf16), true);
  const Tensor ids = ints({2}, {3, 1}), dy = cast(random({2, 3}, 2), DType::bf16);
  Variable expected = embedding(table, ids, DType::bf16), y = embedding(rounded, ids, DType::bf16);
  test::expect_near(y.value(), expected.value(), 0);
  expected.backward(dy);
  y.backward(dy);
  ASSERT_EQ(rounded.grad().dtype(), DType::f32);
  test::expect_near(rounded.grad(), table.grad(), 0);
}

TEST(Embedding, RefusesIdsThatAreNoIntsAndTablesThatAreRoundedTooEarly) {
  EXPECT_THROW(embedding(Variable(random({4, 3}, 1)), random({2}, 1), DType::f32), Error);
  EXPECT_THROW(embedding(Variable(cast(random({4, 3}, 1), DType::bf16)), ints({1}, {0}), DType::f32), Error);
}

}  // namespace
}  // namespace switchyard
