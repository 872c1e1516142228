#pragma once

#include <bit>
#include <cstdint>

#include "tensor/dtype.h"

// Scalar functions that the compiler turns into vector code inside `#pragma omp simd`, and rows of f32 or bf16.
namespace switchyard::cpu {

// Fewer elements than this are done sooner by one thread than several threads are woken.
inline constexpr std::int64_t kParallelElements = 1 << 15;

// e^x to 1 ulp: 2^n e^r with n = round(x / ln 2) and |r| <= ln 2 / 2 (the polynomial is Cephes' expf). Below -87 it is
// 0, beyond the range of f32 infinity; a NaN stays a NaN.
inline float exp_approx(float x) {
  x = x < -87.3f ? -87.3f : x;
  x = x > 89.0f ? 89.0f : x;
  constexpr float kRound = 0x1.8p23f;  // adding it leaves the nearest integer in the low bits
  const float shifted = x * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  // 2^n as 2 * 2^(n - 1): n reaches 128, whose power of two f32 does not hold; n = -126 gives 0.
  const std::uint32_t exponent = std::bit_cast<std::uint32_t>(shifted) + 126;
  return (p + p) * std::bit_cast<float>(exponent << 23);
}

inline float sigmoid_approx(float x) { return 1.0f / (1.0f + exp_approx(-x)); }

inline float to_float(float x) { return x; }
inline float to_float(bf16 x) { return static_cast<float>(x); }

// Rounds to T: float or bf16.
template <class T>
inline T from_float(float x) {
  return T(x);
}

// y = x, converted between f32 and bf16.
template <class To, class From>
inline void convert_row(To* y, const From* x, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) y[i] = from_float<To>(to_float(x[i]));
}

// Calls f(T{}) with T = float or bf16, the types that rows come in.
template <class F>
inline void with_row_type(DType dtype, F&& f) {
  dtype == DType::f32 ? f(float{}) : f(bf16{});
}

// sum of term(i) for i in [0, n), in f32 and in an order that depends on n alone. Both halves at once, because one
// running sum would wait for every addition.
template <class Term>
inline float sum_over(std::int64_t n, Term term) {
  const std::int64_t half = n / 2;
  float a = 0, b = 0;
#pragma omp simd reduction(+ : a, b)
  for (std::int64_t i = 0; i < half; ++i) {
    a += term(i);
    b += term(half + i);
  }
  return a + b + (n % 2 ? term(n - 1) : 0.0f);
}

}  // namespace switchyard::cpu
