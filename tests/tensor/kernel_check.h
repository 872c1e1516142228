#pragma once

#include <gtest/gtest.h>
#include <omp.h>

#include <cstring>
#include <functional>

#include "grad_check.h"
#include "tensor/kernels.h"

namespace switchyard::test {

// Relative rounding of one value stored as `dtype`, on top of `steps` roundings of f32 arithmetic before it.
inline double rounding(DType dtype, double steps = 8) { return steps * 0x1p-24 + (dtype == DType::bf16 ? 0x1p-8 : 0); }

inline Tensor random_rows(Shape shape, DType dtype, unsigned seed, float scale = 1) {
  return cast(random(shape, seed, scale), dtype);
}

// A tensor full of a value that no kernel writes, so that an element left out is seen.
inline Tensor poisoned(Shape shape, DType dtype) {
  Tensor t = Tensor::empty(shape, dtype, Device{});
  std::memset(t.bytes(), 0xff, t.size_in_bytes());
  return t;
}

// actual[i] is near expected(i), within `tolerance` of the larger of |expected| and `size`.
inline void expect_values(const Tensor& actual, const std::function<double(std::int64_t)>& expected, double tolerance,
                          double size = 1e-3) {
  for (std::int64_t i = 0; i < actual.numel(); ++i) {
    const double want = expected(i);
    ASSERT_NEAR(at(actual, i), want, tolerance * std::max(size, std::abs(want))) << "at " << i;
  }
}

inline void expect_same_bits(const Tensor& a, const Tensor& b) {
  ASSERT_EQ(a.shape(), b.shape());
  ASSERT_EQ(a.dtype(), b.dtype());
  EXPECT_EQ(std::memcmp(a.bytes(), b.bytes(), a.size_in_bytes()), 0);
}

// The outputs of `run` have the same bits on one thread, on two and on three, and again on a second call.
inline void expect_same_bits_on_any_threads(const std::function<std::vector<Tensor>()>& run) {
  const int before = omp_get_max_threads();
  omp_set_num_threads(1);
  const std::vector<Tensor> expected = run();
  for (int threads : {1, 2, 3}) {
    omp_set_num_threads(threads);
    const std::vector<Tensor> actual = run();
    for (std::size_t i = 0; i < expected.size(); ++i) expect_same_bits(actual[i], expected[i]);
  }
  omp_set_num_threads(before);
}

}  // namespace switchyard::test
