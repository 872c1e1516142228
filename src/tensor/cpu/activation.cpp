#include "tensor/cpu/kernels.h"
#include "tensor/cpu/simd.h"

namespace switchyard::cpu {
namespace {

// f(x) and f'(x).
struct Slope {
  float value, slope;
};

// x sigmoid(x)
struct Silu {
  static float value(float x) { return x * sigmoid_approx(x); }
  static Slope slope(float x) {
    const float s = sigmoid_approx(x);
    return {x * s, s * (1 + x * (1 - s))};
  }
};

// x (1 + tanh(u)) / 2 = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3). The sigmoid keeps its relative precision
// where 1 + tanh(u) cancels.
struct Gelu {
  static constexpr float kTwoRoot = 1.5957691216f, kCube = 0.044715f;  // 2 sqrt(2/pi)
  static float value(float x) { return x * sigmoid_approx(kTwoRoot * x * (1 + kCube * x * x)); }
  static Slope slope(float x) {
    const float s = sigmoid_approx(kTwoRoot * x * (1 + kCube * x * x));
    return {x * s, s + x * s * (1 - s) * kTwoRoot * (1 + 3 * kCube * x * x)};
  }
};

struct Relu {
  static float value(float x) { return x > 0 ? x : 0; }
  static Slope slope(float x) { return {value(x), x > 0 ? 1.0f : 0.0f}; }
};

template <class Body>
void with_function(Activation kind, Body body) {
  switch (kind) {
    case Activation::swiglu: return body(Silu{});
    case Activation::geglu:
    case Activation::gelu: return body(Gelu{});
    case Activation::relu: return body(Relu{});
  }
}

template <class F, class T>
void gated_row(T* y, const T* x, std::int64_t width) {
#pragma omp simd
  for (std::int64_t i = 0; i < width; ++i) y[i] = from_float<T>(F::value(to_float(x[i])) * to_float(x[width + i]));
}

template <class F, class T>
void plain_row(T* y, const T* x, std::int64_t width) {
#pragma omp simd
  for (std::int64_t i = 0; i < width; ++i) y[i] = from_float<T>(F::value(to_float(x[i])));
}

template <class F, class T>
void gated_row_backward(T* dx, const T* dy, const T* x, std::int64_t width) {
#pragma omp simd
  for (std::int64_t i = 0; i < width; ++i) {
    const float g = to_float(dy[i]);
    const auto [value, slope] = F::slope(to_float(x[i]));
    dx[i] = from_float<T>(g * to_float(x[width + i]) * slope);
    dx[width + i] = from_float<T>(g * value);
  }
}

template <class F, class T>
void plain_row_backward(T* dx, const T* dy, const T* x, std::int64_t width) {
#pragma omp simd
  for (std::int64_t i = 0; i < width; ++i) dx[i] = from_float<T>(to_float(dy[i]) * F::slope(to_float(x[i])).slope);
}

}  // namespace

void activation(Tensor& y, const Tensor& x, Activation kind) {
  const std::int64_t rows = y.dim(0), width = y.dim(1), stride = x.dim(1);
  with_function(kind, [&](auto function) {
    with_row_type(x.dtype(), [&](auto type) {
      using F = decltype(function);
      using T = decltype(type);
      const T* xs = x.data<T>();
      T* ys = y.data<T>();
#pragma omp parallel for schedule(static) if (rows * width > kParallelElements)
      for (std::int64_t r = 0; r < rows; ++r) {
        if (is_gated(kind))
          gated_row<F>(ys + r * width, xs + r * stride, width);
        else
          plain_row<F>(ys + r * width, xs + r * stride, width);
      }
    });
  });
}

void activation_backward(Tensor& dx, const Tensor& dy, const Tensor& x, Activation kind) {
  const std::int64_t rows = dy.dim(0), width = dy.dim(1), stride = x.dim(1);
  with_function(kind, [&](auto function) {
    with_row_type(x.dtype(), [&](auto type) {
      using F = decltype(function);
      using T = decltype(type);
      const T *xs = x.data<T>(), *dys = dy.data<T>();
      T* dxs = dx.data<T>();
#pragma omp parallel for schedule(static) if (rows * width > kParallelElements)
      for (std::int64_t r = 0; r < rows; ++r) {
        if (is_gated(kind))
          gated_row_backward<F>(dxs + r * stride, dys + r * width, xs + r * stride, width);
        else
          plain_row_backward<F>(dxs + r * stride, dys + r * width, xs + r * stride, width);
      }
    });
  });
}

}  // namespace switchyard::cpu
