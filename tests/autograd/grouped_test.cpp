#include "autograd/ops.h"
#include "product_check.h"

namespace switchyard {
namespace {

// Four experts, the second and the last without rows.
const std::vector<std::int32_t> kOffsets{0, 3, 3, 7, 7};

TEST(GroupedLinear, GradientsAgreeWithFiniteDifferences) {
  const Tensor offsets = test::ints({5}, kOffsets);
  test::check_gradients({Variable(test::random({7, 3}, 1), true), Variable(test::random({4, 2, 3}, 2), true)},
                        [&](auto& in) { return grouped_linear(in[0], in[1], offsets); });
}

// Each expert's rows give what linear() gives them alone; an expert without rows has a zero gradient.
TEST(GroupedLinear, IsOneLinearAnExpert) {
  constexpr std::int64_t kExperts = 4, kRows = 7, kOut = 34, kIn = 18;
  for (DType dtype : {DType::f32, DType::bf16}) {
    Variable x(test::random_rows({kRows, kIn}, dtype, 1), true), w(test::random({kExperts, kOut, kIn}, 2), true);
    const Tensor dy = test::random_rows({kRows, kOut}, dtype, 3);
    Variable y = grouped_linear(x, w, test::ints({kExperts + 1}, kOffsets));
    y.backward(dy);
    EXPECT_EQ(y.dtype(), dtype);
    ASSERT_EQ(x.grad().dtype(), dtype);
    ASSERT_EQ(w.grad().dtype(), DType::f32);
    for (std::int64_t e = 0; e < kExperts; ++e) {
      const std::int64_t begin = kOffsets[static_cast<std::size_t>(e)], end = kOffsets[static_cast<std::size_t>(e) + 1];
      Variable x_e(x.value().rows(begin, end), true), w_e(w.value().rows(e, e + 1).view({kOut, kIn}), true);
      Variable y_e = linear(x_e, w_e);
      y_e.backward(dy.rows(begin, end));
      // The same sums, which f32 may make in another order: 18 to 34 terms below 1.
      test::expect_near(y.value().rows(begin, end), y_e.value(), 1e-5);
      test::expect_near(x.grad().rows(begin, end), x_e.grad(), 1e-5);
      test::expect_near(w.grad().rows(e, e + 1).view({kOut, kIn}), w_e.grad(), 1e-5);
    }
  }
}

// Equal loads, said once with offsets and once without: the same y and the same gradients, bit for bit.
TEST(GroupedLinear, TakesEqualLoadsWithoutOffsets) {
  constexpr std::int64_t kExperts = 3, kEach = 2;
  const auto run = [&](Tensor offsets, std::int64_t rows_each) {
    Variable x(test::random({kExperts * kEach, 5}, 1), true), w(test::random({kExperts, 4, 5}, 2), true);
    Variable y = grouped_linear(x, w, std::move(offsets), rows_each);
    y.backward(test::random({kExperts * kEach, 4}, 3));
    return std::vector{y.value(), x.grad(), w.grad()};
  };
  const auto with = run(test::ints({kExperts + 1}, {0, 2, 4, 6}), 0), without = run({}, kEach);
  for (std::size_t i = 0; i < with.size(); ++i) test::expect_near(without[i], with[i], 0);
}

TEST(GroupedLinear, MakesOnlyTheGradientsThatAreAskedFor) {
  for (bool of_x : {false, true}) {
    Variable x(test::random({7, 3}, 1), of_x), w(test::random({4, 2, 3}, 2), !of_x);
    grouped_linear(x, w, test::ints({5}, kOffsets)).backward(test::random({7, 2}, 3));
    EXPECT_EQ(static_cast<bool>(x.grad()), of_x);
    EXPECT_EQ(static_cast<bool>(w.grad()), !of_x);
  }
}

TEST(GroupedLinear, SaysWhatDoesNotFit) {
  const Variable x(test::random({7, 3}, 1)), w(test::random({4, 2, 3}, 2)), other(test::random({4, 2, 5}, 2));
  EXPECT_THROW(grouped_linear(x, other, test::ints({5}, kOffsets)), Error);
  EXPECT_THROW(grouped_linear(x, w, test::ints({4}, {0, 3, 3, 7})), Error);
  EXPECT_THROW(grouped_linear(x, w, {}), Error);
  EXPECT_THROW(grouped_linear(x, w, {}, 2), Error);  // 8 rows
}

}  // namespace
}  // namespace switchyard
