#include <gtest/gtest.h>

#include <numbers>

#include "kernel_check.h"

namespace switchyard {
namespace {

using test::at, test::expect_values, test::poisoned, test::random_rows, test::rounding;

const Kernels& k = kernels(Device{});

// f and f' by their textbook definitions, in double.
double f(Activation kind, double x) {
  const double u = std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x);
  switch (kind) {
    case Activation::swiglu: return x / (1 + std::exp(-x));
    case Activation::geglu:
    case Activation::gelu: return 0.5 * x * (1 + std::tanh(u));
    case Activation::relu: return std::max(x, 0.0);
  }
  return 0;
}
double slope(Activation kind, double x) {
  const double sigmoid = 1 / (1 + std::exp(-x));
  const double u = std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x);
  const double du = std::sqrt(2 / std::numbers::pi) * (1 + 3 * 0.044715 * x * x);
  switch (kind) {
    case Activation::swiglu: return sigmoid + x * sigmoid * (1 - sigmoid);
    case Activation::geglu:
    case Activation::gelu: return 0.5 * (1 + std::tanh(u)) + 0.5 * x * du / (std::cosh(u) * std::cosh(u));
    case Activation::relu: return x > 0 ? 1 : 0;
  }
  return 0;
}

struct Case {
  Activation kind;
  DType dtype;
  std::int64_t rows, width;
};
class ActivationKernel : public testing::TestWithParam<Case> {};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (Activation kind : {Activation::swiglu, Activation::geglu, Activation::gelu, Activation::relu})
    for (DType dtype : {DType::f32, DType::bf16})
      for (auto [rows, width] : {std::pair{0, 4}, {1, 1}, {3, 37}, {130, 255}})
        all.push_back({kind, dtype, rows, width});
  return all;
}
INSTANTIATE_TEST_SUITE_P(All, ActivationKernel, testing::ValuesIn(cases()));

TEST_P(ActivationKernel, MatchesTheDefinition) {
  const auto [kind, dtype, rows, width] = GetParam();
  const bool gated = is_gated(kind);
  const std::int64_t stride = gated ? 2 * width : width;
  const Tensor x = random_rows({rows, stride}, dtype, 1, 6), dy = random_rows({rows, width}, dtype, 2);
  const auto gate = [&, width = width](std::int64_t i) { return at(x, i / width * stride + i % width); };
  const auto up = [&, width = width](std::int64_t i) { return at(x, i / width * stride + width + i % width); };

  Tensor y = poisoned({rows, width}, dtype);
  k.activation(y, x, kind);
  // f32's roundings of the exponent's argument (up to 12) make the exponential worse by as much.
  const auto value = [&, kind = kind](std::int64_t i) { return f(kind, gate(i)) * (gated ? up(i) : 1); };
  expect_values(y, value, rounding(dtype, 64));

  Tensor dx = poisoned({rows, stride}, dtype);
  k.activation_backward(dx, dy, x, kind);
  const auto gradient = [&, width = width, kind = kind](std::int64_t j) {
    const std::int64_t column = j % stride, i = j / stride * width + column % width;
    if (column >= width) return at(dy, i) * f(kind, gate(i));
    return at(dy, i) * slope(kind, gate(i)) * (gated ? up(i) : 1);
  };
  // The slope is a difference of numbers of size one, times up to 6.
  expect_values(dx, gradient, rounding(dtype, 64), dtype == DType::f32 ? 1 : 1e-2);
}

TEST(ActivationKernelEnds, StayFiniteFarOut) {
  const Tensor x = test::floats({1, 4}, {-200, -90, 90, 200});
  for (Activation kind : {Activation::gelu, Activation::relu}) {
    Tensor y = poisoned({1, 4}, DType::f32), dx = poisoned({1, 4}, DType::f32);
    k.activation(y, x, kind);
    test::expect_near(y, test::floats({1, 4}, {0, 0, 90, 200}), 1e-6);
    k.activation_backward(dx, test::floats({1, 4}, {1, 1, 1, 1}), x, kind);
    test::expect_near(dx, test::floats({1, 4}, {0, 0, 1, 1}), 1e-6);
  }
  Tensor y = poisoned({1, 2}, DType::f32);
  k.activation(y, test::floats({1, 4}, {-200, 200, 1, 1}), Activation::swiglu);
  test::expect_near(y, test::floats({1, 2}, {0, 200}), 1e-6);
}

// silu(x) = x / (1 + e^-x) is x e^x far below zero: as good as the exponential, which is good to a unit in the last
// place (2^-23), and three roundings.
TEST(ActivationKernelEnds, KeepTheirRelativePrecisionFarOut) {
  constexpr std::int64_t n = 12'001;
  Tensor x = Tensor::empty({1, 2 * n}, DType::f32, Device{}), y = poisoned({1, n}, DType::f32);
  for (std::int64_t i = 0; i < n; ++i) {
    x.data<float>()[i] = -87 + static_cast<float>(i) * (174.0f / n);
    x.data<float>()[n + i] = 1;
  }
  k.activation(y, x, Activation::swiglu);
  expect_values(
      y, [&](auto i) { return f(Activation::swiglu, at(x, i)); }, 4 * 0x1p-23, 0);
}

TEST(ActivationKernelEnds, KeepANaN) {
  Tensor x = poisoned({1, 4}, DType::f32);
  for (Activation kind : {Activation::swiglu, Activation::geglu}) {
    Tensor y = Tensor::zeros({1, 2}, DType::f32, Device{});
    k.activation(y, x, kind);
    EXPECT_TRUE(std::isnan(at(y, 0)));
  }
}

TEST(ActivationKernelEnds, SameBitsOnAnyNumberOfThreads) {
  const Tensor x = random_rows({300, 514}, DType::bf16, 1, 4), dy = random_rows({300, 257}, DType::bf16, 2);
  test::expect_same_bits_on_any_threads([&] {
    Tensor y = empty_like(dy), dx = empty_like(x);
    k.activation(y, x, Activation::swiglu);
    k.activation_backward(dx, dy, x, Activation::swiglu);
    return std::vector{y, dx};
  });
}

}  // namespace
}  // namespace switchyard
