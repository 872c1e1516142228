#include "autograd/ops.h"
#include "product_check.h"

namespace switchyard {
namespace {

using test::at;
using test::random_rows;

TEST(Linear, GradientsAgreeWithFiniteDifferences) {
  test::check_gradients({Variable(test::random({3, 5}, 1), true), Variable(test::random({4, 5}, 2), true)},
                        [](auto& in) { return linear(in[0], in[1]); });
}

TEST(LinearF32, GradientsAgreeWithFiniteDifferences) {
  test::check_gradients({Variable(test::random({3, 5}, 1), true), Variable(test::random({4, 5}, 2), true)},
                        [](auto& in) { return linear_f32(in[0], in[1]); });
}

// The gradients of a bf16 product as products of their own, in each type that the op promises.
TEST(Linear, OfBf16RowsSumsTheParametersGradientInF32) {
  constexpr std::int64_t kRows = 40, kOut = 35, kIn = 33;
  Variable x(random_rows({kRows, kIn}, DType::bf16, 1), true), w(test::random({kOut, kIn}, 2), true);
  const Tensor dy = random_rows({kRows, kOut}, DType::bf16, 3), rounded = cast(w.value(), DType::bf16);
  Variable y = linear(x, w);
  EXPECT_EQ(y.dtype(), DType::bf16);
  y.backward(dy);
  ASSERT_EQ(x.grad().dtype(), DType::bf16);
  ASSERT_EQ(w.grad().dtype(), DType::f32);
  const auto x_at = [&](auto r, auto i) { return at(x.value(), r * kIn + i); };
  const auto w_at = [&](auto o, auto i) { return at(rounded, o * kIn + i); };
  const auto dy_at = [&](auto r, auto o) { return at(dy, r * kOut + o); };
  test::ProductCheck{
      .m = kRows, .n = kOut, .k = kIn, .a = x_at, .b = [&](auto i, auto o) { return w_at(o, i); }}(y.value());
  test::ProductCheck{.m = kRows, .n = kIn, .k = kOut, .a = dy_at, .b = w_at}(x.grad());
  test::ProductCheck{
      .m = kOut, .n = kIn, .k = kRows, .a = [&](auto o, auto r) { return dy_at(r, o); }, .b = x_at}(w.grad());
}

// The compute copy of an f32 master and of the master rounded are the same, at first and after a change.
TEST(Linear, ReadsAParameterOfTheRowsTypeToo) {
  Variable w(test::random({35, 33}, 2), true), rounded(cast(w.value(), DType::bf16), true);
  for (unsigned step = 0; step < 2; ++step) {
    Variable x(random_rows({8, 33}, DType::bf16, 1), true), same(x.value(), true);
    const Tensor dy = random_rows({8, 35}, DType::bf16, 3);
    Variable expected = linear(x, w), y = linear(same, rounded);
    test::expect_near(y.value(), expected.value(), 0);
    expected.backward(dy);
    y.backward(dy);
    test::expect_near(same.grad(), x.grad(), 0);
    ASSERT_EQ(rounded.grad().dtype(), DType::f32);
    test::expect_near(rounded.grad(), w.grad(), 0);
    kernels(Device{}).copy(w.value(), test::random({35, 33}, 4));
    kernels(Device{}).copy(rounded.value(), w.value());
    w.refresh_weight();
    rounded.refresh_weight();
  }
  EXPECT_THROW(linear(Variable(test::random({8, 33}, 1)), rounded), Error);
}

TEST(LinearF32, OfBf16RowsKeepsTheMasterAndRoundsOnlyDx) {
  constexpr std::int64_t kRows = 6, kOut = 4, kIn = 9;
  Variable x(random_rows({kRows, kIn}, DType::bf16, 1), true), w(test::random({kOut, kIn}, 2), true);
  const Tensor dy = test::random({kRows, kOut}, 3);
  Variable y = linear_f32(x, w);
  EXPECT_EQ(y.dtype(), DType::f32);
  y.backward(dy);
  ASSERT_EQ(x.grad().dtype(), DType::bf16);
  ASSERT_EQ(w.grad().dtype(), DType::f32);
  const auto x_at = [&](auto r, auto i) { return at(x.value(), r * kIn + i); };
  const auto w_at = [&](auto o, auto i) { return at(w.value(), o * kIn + i); };
  const auto dy_at = [&](auto r, auto o) { return at(dy, r * kOut + o); };
  test::ProductCheck{
      .m = kRows, .n = kOut, .k = kIn, .a = x_at, .b = [&](auto i, auto o) { return w_at(o, i); }}(y.value());
  test::ProductCheck{.m = kRows, .n = kIn, .k = kOut, .a = dy_at, .b = w_at}(x.grad());
  test::ProductCheck{
      .m = kOut, .n = kIn, .k = kRows, .a = [&](auto o, auto r) { return dy_at(r, o); }, .b = x_at}(w.grad());
}

TEST(Linear, MakesOnlyTheGradientsThatAreAskedFor) {
  for (const auto op : {linear, linear_f32})
    for (bool of_x : {false, true}) {
      Variable x(test::random({3, 5}, 1), of_x), w(test::random({4, 5}, 2), !of_x);
      op(x, w).backward(test::random({3, 4}, 3));
      EXPECT_EQ(static_cast<bool>(x.grad()), of_x);
      EXPECT_EQ(static_cast<bool>(w.grad()), !of_x);
    }
}

TEST(Linear, OfNoRowsHasAZeroParameterGradient) {
  for (DType dtype : {DType::f32, DType::bf16}) {
    Variable x(Tensor::empty({0, 5}, dtype, Device{}), true), w(test::random({4, 5}, 2), true);
    linear(x, w).backward(Tensor::empty({0, 4}, dtype, Device{}));
    ASSERT_TRUE(x.grad());
    for (std::int64_t i = 0; i < w.value().numel(); ++i) EXPECT_EQ(at(w.grad(), i), 0);
  }
}

TEST(Linear, SaysWhichShapesDoNotFit) {
  const Variable x(test::random({3, 5}, 1)), w(test::random({4, 6}, 2));
  EXPECT_THROW(linear(x, w), Error);
  EXPECT_THROW(linear_f32(x, w), Error);
}

}  // namespace
}  // namespace switchyard
