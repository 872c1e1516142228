#pragma once

#include <functional>

#include "grad_check.h"

namespace switchyard::test {

// Uniform in (-1, 1), rounded to `dtype`.
inline Tensor random_rows(Shape shape, DType dtype, unsigned seed) { return cast(random(shape, seed), dtype); }

// Compares c, computed by the code under test, with before + sum_k a(i, k) b(k, j) in double. The sum in f32 of K exact
// products (a bf16 product fits an f32) is within (K + 2) 2^-24 sum |a b| in any order, the last terms for `before` and
// an f32 product's own rounding; bf16 results round once more, by at most 2^-8 of themselves.
struct ProductCheck {
  std::int64_t m = 0, n = 0, k = 0;
  std::function<double(std::int64_t i, std::int64_t k)> a;
  std::function<double(std::int64_t k, std::int64_t j)> b;
  std::function<double(std::int64_t i, std::int64_t j)> before = [](std::int64_t, std::int64_t) { return 0.0; };

  void operator()(const Tensor& c, std::int64_t first_row = 0) const {
    ASSERT_EQ(c.dim(-1), n);
    for (std::int64_t i = 0; i < m; ++i)
      for (std::int64_t j = 0; j < n; ++j) {
        double sum = before(i, j), size = std::abs(sum);
        for (std::int64_t l = 0; l < k; ++l) {
          sum += a(i, l) * b(l, j);
          size += std::abs(a(i, l) * b(l, j));
        }
        const double rounding = c.dtype() == DType::bf16 ? 0x1p-8 * std::abs(sum) : 0;
        ASSERT_NEAR(at(c, (first_row + i) * n + j), sum, 1.01 * rounding + static_cast<double>(k + 2) * 0x1p-24 * size)
            << "at (" << i << ", " << j << ") of " << m << " x " << n << " x " << k;
      }
  }
};

}  // namespace switchyard::test
