#include "tensor/cuda/block.cuh"
#include "tensor/cuda/kernels.h"

namespace switchyard::cuda {
namespace {

constexpr int kThreads = 256;

// The exponential may overflow: the quotient is then 0.
__device__ inline float sigmoid(float x) { return __fdividef(1.0f, 1.0f + expf(-x)); }

// f(x) and f'(x).
struct Slope {
  float value, slope;
};

// x sigmoid(x)
struct Silu {
  __device__ static float value(float x) { return x * sigmoid(x); }
  __device__ static Slope slope(float x) {
    const float s = sigmoid(x);
    return {x * s, s * (1 + x * (1 - s))};
  }
};

// x (1 + tanh(u)) / 2 = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3)
struct Gelu {
  static constexpr float kTwoRoot = 1.5957691216f, kCube = 0.044715f;  // 2 sqrt(2/pi)
  __device__ static float value(float x) { return x * sigmoid(kTwoRoot * x * (1 + kCube * x * x)); }
  __device__ static Slope slope(float x) {
    const float s = sigmoid(kTwoRoot * x * (1 + kCube * x * x));
    return {x * s, s + x * s * (1 - s) * kTwoRoot * (1 + 3 * kCube * x * x)};
  }
};

struct Relu {
  __device__ static float value(float x) { return x > 0 ? x : 0; }
  __device__ static Slope slope(float x) { return {value(x), x > 0 ? 1.0f : 0.0f}; }
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

// Walks this thread through rows of `width` elements, N at a time and in strides of the grid, and divides at the start
// only: a division for every 16 bytes would cost as much as an exponential.
class Walk {
 public:
  __device__ Walk(std::int64_t width, int n)
      : n_(n),
        width_(width),
        row_((std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / (width / n)),
        column_((std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x) % (width / n) * n),
        row_step_(std::int64_t{gridDim.x} * blockDim.x / (width / n)),
        column_step_(std::int64_t{gridDim.x} * blockDim.x % (width / n) * n) {}

  __device__ std::int64_t row() const { return row_; }
  __device__ std::int64_t column() const { return column_; }
  __device__ void advance() {
    row_ += row_step_;
    column_ += column_step_;
    if (column_ >= width_) column_ -= width_, ++row_;
  }

 private:
  int n_;
  std::int64_t width_, row_, column_, row_step_, column_step_;
};

// Rows of y are `width` wide; those of x as wide, or twice where gated.
template <class F, bool gated, int N, class T>
__global__ void __launch_bounds__(kThreads) forward_kernel(T* y, const T* x, std::int64_t rows, std::int64_t width) {
  for (Walk at(width, N); at.row() < rows; at.advance()) {
    const T* from = x + at.row() * (gated ? 2 * width : width) + at.column();
    const auto gate = load_pack<N>(from);
    Pack<T, N> out;
    if constexpr (gated) {
      const auto up = load_pack<N>(from + width);
      for (int i = 0; i < N; ++i) out.v[i] = T(F::value(float(gate.v[i])) * float(up.v[i]));
    } else {
      for (int i = 0; i < N; ++i) out.v[i] = T(F::value(float(gate.v[i])));
    }
    store_pack(y + at.row() * width + at.column(), out);
  }
}

template <class F, bool gated, int N, class T>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(T* dx, const T* dy, const T* x, std::int64_t rows, std::int64_t width) {
  for (Walk at(width, N); at.row() < rows; at.advance()) {
    const std::int64_t from = at.row() * (gated ? 2 * width : width) + at.column();
    const auto g = load_pack<N>(dy + at.row() * width + at.column()), gate = load_pack<N>(x + from);
    Pack<T, N> dgate;
    if constexpr (gated) {
      const auto up = load_pack<N>(x + from + width);
      Pack<T, N> dup;
      for (int i = 0; i < N; ++i) {
        const Slope f = F::slope(float(gate.v[i]));
        dgate.v[i] = T(float(g.v[i]) * float(up.v[i]) * f.slope);
        dup.v[i] = T(float(g.v[i]) * f.value);
      }
      store_pack(dx + from + width, dup);
    } else {
      for (int i = 0; i < N; ++i) dgate.v[i] = T(float(g.v[i]) * F::slope(float(gate.v[i])).slope);
    }
    store_pack(dx + from, dgate);
  }
}

// Calls body(F, gated, rows, width): without a gate the rows do not matter, and all elements count as one row.
template <class Body>
void with_rows(Activation kind, std::int64_t rows, std::int64_t width, Body body) {
  with_function(kind, [&](auto function) {
    if (is_gated(kind))
      body(function, std::true_type{}, rows, width);
    else
      body(function, std::false_type{}, std::int64_t{1}, rows * width);
  });
}

}  // namespace

void activation(Tensor& y, const Tensor& x, Activation kind) {
  Context& on = context(y.device());
  dispatch_float(x.dtype(), "activation", [&](auto zero) {
    using T = decltype(zero);
    with_rows(kind, y.dim(0), y.dim(1), [&](auto function, auto gated, std::int64_t rows, std::int64_t width) {
      T* ys = ptr<T>(y);
      const T* xs = ptr<T>(x);
      with_pack<T>(
          width,
          [&](auto n) {
            launch(on, "activation", forward_kernel<decltype(function), gated(), n(), T>,
                   grid_for(on, rows * (width / n()), kThreads), kThreads, 0, ys, xs, rows, width);
          },
          ys, xs);
    });
  });
}

void activation_backward(Tensor& dx, const Tensor& dy, const Tensor& x, Activation kind) {
  Context& on = context(dx.device());
  dispatch_float(x.dtype(), "activation_backward", [&](auto zero) {
    using T = decltype(zero);
    with_rows(kind, dy.dim(0), dy.dim(1), [&](auto function, auto gated, std::int64_t rows, std::int64_t width) {
      T* dxs = ptr<T>(dx);
      const T *dys = ptr<T>(dy), *xs = ptr<T>(x);
      with_pack<T>(
          width,
          [&](auto n) {
            launch(on, "activation_backward", backward_kernel<decltype(function), gated(), n(), T>,
                   grid_for(on, rows * (width / n()), kThreads), kThreads, 0, dxs, dys, xs, rows, width);
          },
          dxs, dys, xs);
    });
  });
}

}  // namespace switchyard::cuda
