#include <gtest/gtest.h>

#include "kernel_check.h"

namespace switchyard {
namespace {

using test::at, test::expect_values, test::poisoned, test::random, test::random_rows, test::rounding;

const Kernels& k = kernels(Device{});
constexpr float kEps = 1e-5f;

struct Case {
  std::int64_t rows, dim;
  DType dtype;
};

// The definition, in double.
struct Definition {
  const Tensor &x, &w;
  std::int64_t dim;

  double rstd(std::int64_t r) const {
    double squares = 0;
    for (std::int64_t d = 0; d < dim; ++d) squares += at(x, r * dim + d) * at(x, r * dim + d);
    return 1 / std::sqrt(squares / static_cast<double>(dim) + kEps);
  }
  double y(std::int64_t i) const { return at(x, i) * rstd(i / dim) * at(w, i % dim); }
  // dx_i = sum_j dy_j dy_j/dx_i, with dy_j/dx_i = w_j (rstd [i = j] - x_j x_i rstd^3 / dim)
  double dx(const Tensor& dy, std::int64_t i) const {
    const std::int64_t r = i / dim;
    const double s = rstd(r);
    double sum = 0;
    for (std::int64_t j = r * dim; j < (r + 1) * dim; ++j)
      sum +=
          at(dy, j) * at(w, j % dim) * ((i == j ? s : 0) - at(x, j) * at(x, i) * s * s * s / static_cast<double>(dim));
    return sum;
  }
  double dw(const Tensor& dy, std::int64_t d) const {
    double sum = 0;
    for (std::int64_t r = 0; r < x.dim(0); ++r) sum += at(dy, r * dim + d) * at(x, r * dim + d) * rstd(r);
    return sum;
  }
};

class RmsNorm : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Shapes, RmsNorm,
                         testing::Values(Case{0, 8, DType::f32}, Case{1, 1, DType::f32}, Case{3, 7, DType::f32},
                                         Case{5, 64, DType::bf16}, Case{70, 33, DType::bf16}, Case{150, 65, DType::f32},
                                         Case{300, 130, DType::bf16}));

TEST_P(RmsNorm, MatchesTheDefinition) {
  const auto [rows, dim, dtype] = GetParam();
  const Tensor x = random_rows({rows, dim}, dtype, 1, 2), w = random({dim}, 2), dy = random_rows({rows, dim}, dtype, 3);
  const Definition definition{x, w, dim};

  Tensor y = poisoned({rows, dim}, dtype), rstd = poisoned({rows}, DType::f32);
  k.rms_norm(y, rstd, x, w, kEps);
  expect_values(
      rstd, [&](auto r) { return definition.rstd(r); }, rounding(DType::f32));
  expect_values(
      y, [&](auto i) { return definition.y(i); }, rounding(dtype, 12));

  Tensor dx = poisoned({rows, dim}, dtype), dw = poisoned({dim}, DType::f32);
  k.rms_norm_backward(dx, dw, dy, x, w, rstd);
  // Differences and sums of numbers of size one: their roundings count against one.
  expect_values(
      dx, [&](auto i) { return definition.dx(dy, i); }, rounding(dtype, 32), dtype == DType::f32 ? 1 : 1e-2);
  expect_values(
      dw, [&](auto d) { return definition.dw(dy, d); }, rounding(DType::f32, 64), 1);
}

// Add, norm, norm's gradient and its sum with dskip, one row of the table after the other, give the same bits.
TEST_P(RmsNorm, AddedOnTheWayGivesTheBitsOfTheRowsApart) {
  const auto [rows, dim, dtype] = GetParam();
  const Tensor a = random_rows({rows, dim}, dtype, 1, 2), b = random_rows({rows, dim}, dtype, 2), w = random({dim}, 3);
  const Tensor dy = random_rows({rows, dim}, dtype, 4), dskip = random_rows({rows, dim}, dtype, 5);
  Tensor x = empty_like(a), y = empty_like(a), rstd = poisoned({rows}, DType::f32);
  k.copy(x, a);
  k.add(x, b);
  k.rms_norm(y, rstd, x, w, kEps);
  Tensor fused_x = poisoned({rows, dim}, dtype), fused_y = poisoned({rows, dim}, dtype),
         fused_rstd = poisoned({rows}, DType::f32);
  k.add_rms_norm(fused_y, fused_x, fused_rstd, a, b, w, kEps);
  test::expect_same_bits(fused_x, x);
  test::expect_same_bits(fused_y, y);
  test::expect_same_bits(fused_rstd, rstd);

  Tensor dx = poisoned({rows, dim}, dtype), dw = poisoned({dim}, DType::f32);
  Tensor fused_dx = poisoned({rows, dim}, dtype), fused_dw = poisoned({dim}, DType::f32);
  k.rms_norm_backward(dx, dw, dy, x, w, rstd);
  k.add_rms_norm_backward(fused_dx, fused_dw, dy, {}, x, w, rstd);
  test::expect_same_bits(fused_dx, dx);
  test::expect_same_bits(fused_dw, dw);
  k.add(dx, dskip);
  k.add_rms_norm_backward(fused_dx, fused_dw, dy, dskip, x, w, rstd);
  test::expect_same_bits(fused_dx, dx);
  test::expect_same_bits(fused_dw, dw);
}

TEST(RmsNormKernel, DoesNotOverflowOrDivideByZero) {
  const Tensor x = test::floats({2, 2}, {0, 0, 1e18f, -1e18f}), w = test::floats({2}, {1, 1});
  Tensor y = poisoned({2, 2}, DType::f32), rstd = poisoned({2}, DType::f32);
  k.rms_norm(y, rstd, x, w, kEps);
  test::expect_near(y, test::floats({2, 2}, {0, 0, 1, -1}), 1e-6);
}

TEST(RmsNormKernel, SameBitsOnAnyNumberOfThreads) {
  const Tensor x = random_rows({333, 257}, DType::bf16, 1), w = random({257}, 2);
  const Tensor dy = random_rows({333, 257}, DType::bf16, 3);
  test::expect_same_bits_on_any_threads([&] {
    Tensor y = empty_like(x), rstd = poisoned({333}, DType::f32), dx = empty_like(x), dw = empty_like(w);
    k.rms_norm(y, rstd, x, w, kEps);
    k.rms_norm_backward(dx, dw, dy, x, w, rstd);
    Tensor normed = empty_like(x), sum = empty_like(x), dsum = empty_like(x), dw_sum = empty_like(w);
    k.add_rms_norm(normed, sum, rstd, x, y, w, kEps);
    k.add_rms_norm_backward(dsum, dw_sum, dy, x, sum, w, rstd);
    return std::vector{y, rstd, dx, dw, normed, sum, dsum, dw_sum};
  });
}

}  // namespace
}  // namespace switchyard
