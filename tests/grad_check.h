#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <vector>

#include "autograd/variable.h"
#include "tensor/philox.h"

namespace switchyard::test {

// Uniform in (-1, 1), f32, a pure function of the seed.
inline Tensor random(Shape shape, unsigned seed, float scale = 1) {
  Tensor t = Tensor::empty(shape, DType::f32, Device{});
  for (std::int64_t i = 0; i < t.numel(); ++i)
    t.data<float>()[i] = scale * static_cast<float>(2 * uniform(philox({seed, 0}, i)[0]) - 1);
  return t;
}

inline Tensor ints(Shape shape, std::vector<std::int32_t> values) {
  return Tensor::of(std::span<const std::int32_t>(values), shape, Device{});
}

inline Tensor floats(Shape shape, std::vector<float> values) {
  return Tensor::of(std::span<const float>(values), shape, Device{});
}

// An element of an f32 or bf16 tensor, as a double.
inline double at(const Tensor& t, std::int64_t i) {
  return t.dtype() == DType::f32 ? t.data<float>()[i] : static_cast<double>(static_cast<float>(t.data<bf16>()[i]));
}

inline double dot(const Tensor& a, const Tensor& b) {
  double sum = 0;
  for (std::int64_t i = 0; i < a.numel(); ++i) sum += at(a, i) * at(b, i);
  return sum;
}

inline void expect_near(const Tensor& actual, const Tensor& expected, double tolerance) {
  ASSERT_EQ(actual.shape(), expected.shape());
  for (std::int64_t i = 0; i < actual.numel(); ++i)
    ASSERT_NEAR(at(actual, i), at(expected, i), tolerance * std::max(1.0, std::abs(at(expected, i)))) << "at " << i;
}

// Compares the gradient of <op(inputs), dy> for a random dy with central differences, input by input. Inputs are f32.
// A central difference of step h in f32 is good to about eps/h + h^2 f'''/6: 1e-5 + 1e-4 at h = 1e-2 for functions of
// size 1, hence the tolerance.
inline void check_gradients(std::vector<Variable> inputs, const std::function<Variable(std::vector<Variable>&)>& op,
                            double step = 1e-2, double tolerance = 2e-3) {
  Variable y = op(inputs);
  const Tensor dy = random(y.shape(), 99);
  y.backward(dy);

  NoGrad guard;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i].requires_grad()) continue;
    ASSERT_TRUE(inputs[i].grad()) << "input " << i << " got no gradient";
    for (std::int64_t j = 0; j < inputs[i].value().numel(); ++j) {
      float& x = inputs[i].value().data<float>()[j];
      const float before = x;
      x = before + static_cast<float>(step);
      const double above = dot(op(inputs).value(), dy);
      x = before - static_cast<float>(step);
      const double below = dot(op(inputs).value(), dy);
      x = before;
      const double expected = (above - below) / (2 * step);
      EXPECT_NEAR(inputs[i].grad().data<float>()[j], expected, tolerance * std::max(1.0, std::abs(expected)))
          << "input " << i << ", element " << j;
    }
  }
}

}  // namespace switchyard::test
