#include <cmath>
#include <cstring>

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/row_blocks.h"
#include "tensor/cpu/simd.h"

namespace switchyard::cpu {
namespace {

// cos and sin of position * theta^(-2i/head_dim) for i < head_dim / 2, position by position. The frequency and the
// angle are rounded to f32, as Hugging Face's models round them.
class Rotations {
 public:
  const float* cos(std::int64_t position) const { return cos_.data() + position * half_; }
  const float* sin(std::int64_t position) const { return sin_.data() + position * half_; }

  // Makes the table reach `positions`; one that is long enough already stays as it is.
  void reach(std::int64_t positions, std::int64_t head_dim, float theta) {
    const std::int64_t half = head_dim / 2;
    if (half == half_ && theta == theta_ && static_cast<std::int64_t>(cos_.size()) >= positions * half) return;
    half_ = half, theta_ = theta;
    cos_.resize(static_cast<std::size_t>(positions * half));
    sin_.resize(static_cast<std::size_t>(positions * half));
    for (std::int64_t i = 0; i < half; ++i) {
      const double exponent = static_cast<double>(2 * i) / static_cast<double>(head_dim);
      const auto frequency = theta > 0 ? static_cast<float>(1 / std::pow(double{theta}, exponent)) : 0.0f;
      for (std::int64_t p = 0; p < positions; ++p) {
        const double angle = static_cast<float>(p) * frequency;
        cos_[static_cast<std::size_t>(p * half + i)] = static_cast<float>(std::cos(angle));
        sin_[static_cast<std::size_t>(p * half + i)] = static_cast<float>(std::sin(angle));
      }
    }
  }

 private:
  std::int64_t half_ = 0;
  float theta_ = 0;
  std::vector<float> cos_, sin_;
};

// The table of the calling thread. Every layer of a step asks for the same one, and computing it takes longer than
// rotating a row with it.
const Rotations& rotations(AttentionShape shape, Rope rope) {
  thread_local Rotations table;
  table.reach(shape.seq, shape.head_dim, rope.theta);
  return table;
}

// One head forward: y = rotate(x s w), or rotate(x) where w is null.
template <class T>
void rotate_head(T* y, const T* x, const float* w, float s, const float* cos, const float* sin, std::int64_t half) {
  const auto rotate = [=](auto normed) {
#pragma omp simd
    for (std::int64_t i = 0; i < half; ++i) {
      const float a = normed(i), b = normed(half + i);
      y[i] = from_float<T>(a * cos[i] - b * sin[i]);
      y[half + i] = from_float<T>(b * cos[i] + a * sin[i]);
    }
  };
  if (w)
    rotate([=](std::int64_t i) { return to_float(x[i]) * s * w[i]; });
  else
    rotate([=](std::int64_t i) { return to_float(x[i]); });
}

// The transpose of the rotation: the gradient g (f32) before it, from dy after it.
template <class To, class From>
void rotate_back(To* g, const From* dy, const float* cos, const float* sin, std::int64_t half) {
#pragma omp simd
  for (std::int64_t i = 0; i < half; ++i) {
    const float a = to_float(dy[i]), b = to_float(dy[half + i]);
    g[i] = from_float<To>(a * cos[i] + b * sin[i]);
    g[half + i] = from_float<To>(b * cos[i] - a * sin[i]);
  }
}

// One head's norm backward: dx and dw from g, as in rms_norm.cpp.
template <class T>
void norm_head_backward(T* dx, float* dw, const float* g, const T* x, const float* w, float s, std::int64_t dim) {
  const float dot = sum_over(dim, [=](std::int64_t i) { return w[i] * g[i] * to_float(x[i]); });
  const float mean = dot * s / static_cast<float>(dim);
#pragma omp simd
  for (std::int64_t i = 0; i < dim; ++i) {
    const float n = to_float(x[i]) * s;
    dw[i] += g[i] * n;
    dx[i] = from_float<T>(s * (w[i] * g[i] - n * mean));
  }
}

}  // namespace

void qk_norm_rope(Tensor& y, Tensor& rstd, const Tensor& x, const Tensor& wq, const Tensor& wk, float eps,
                  AttentionShape shape, Rope rope) {
  const std::int64_t dim = shape.head_dim, half = dim / 2, width = shape.width();
  const std::int64_t heads = shape.n_heads + shape.n_kv_heads;
  const Rotations& table = rotations(shape, rope);
  const float *q_weight = wq ? wq.data<float>() : nullptr, *k_weight = wk ? wk.data<float>() : nullptr;
  float* rstds = wq ? rstd.data<float>() : nullptr;
  with_row_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    const T* xs = x.data<T>();
    T* ys = y.data<T>();
#pragma omp parallel for schedule(static) if (shape.tokens() * width > kParallelElements)
    for (std::int64_t t = 0; t < shape.tokens(); ++t) {
      const float *cos = table.cos(t % shape.seq), *sin = table.sin(t % shape.seq);
      const T* row = xs + t * width;
      T* out = ys + t * width;
      for (std::int64_t h = 0; h < heads; ++h) {
        const T* head = row + h * dim;
        const float* w = h < shape.n_heads ? q_weight : k_weight;
        float s = 1;
        if (w) {
          const float squares = sum_over(dim, [=](std::int64_t i) { return to_float(head[i]) * to_float(head[i]); });
          s = rstds[t * heads + h] = 1.0f / std::sqrt(squares / static_cast<float>(dim) + eps);
        }
        rotate_head(out + h * dim, head, w, s, cos, sin, half);
      }
      std::memcpy(out + heads * dim, row + heads * dim, static_cast<std::size_t>(width - heads * dim) * sizeof(T));
    }
  });
}

void qk_norm_rope_backward(Tensor& dx, Tensor& dwq, Tensor& dwk, const Tensor& dy, const Tensor& x, const Tensor& wq,
                           const Tensor& wk, const Tensor& rstd, AttentionShape shape, Rope rope) {
  const std::int64_t dim = shape.head_dim, half = dim / 2, width = shape.width();
  const std::int64_t heads = shape.n_heads + shape.n_kv_heads;
  const Rotations& table = rotations(shape, rope);
  const float *q_weight = wq ? wq.data<float>() : nullptr, *k_weight = wk ? wk.data<float>() : nullptr;
  const float* rstds = wq ? rstd.data<float>() : nullptr;
  RowBlocks blocks(shape.tokens(), 3 * dim);  // a part is dwq, dwk, and room for one head's gradient
  with_row_type(dy.dtype(), [&](auto type) {
    using T = decltype(type);
    const T* dys = dy.data<T>();
    const T* xs = wq ? x.data<T>() : nullptr;
    T* dxs = dx.data<T>();
#pragma omp parallel for schedule(static) if (shape.tokens() * width > kParallelElements)
    for (std::int64_t block = 0; block < blocks.count(); ++block) {
      float *q_grad = blocks.part(block), *k_grad = q_grad + dim, *g = k_grad + dim;
      for (std::int64_t t = blocks.begin(block); t < blocks.end(block); ++t) {
        const float *cos = table.cos(t % shape.seq), *sin = table.sin(t % shape.seq);
        const T* row = dys + t * width;
        T* out = dxs + t * width;
        for (std::int64_t h = 0; h < heads; ++h) {
          const bool query = h < shape.n_heads;
          if (const float* w = query ? q_weight : k_weight) {
            rotate_back(g, row + h * dim, cos, sin, half);
            norm_head_backward(out + h * dim, query ? q_grad : k_grad, g, xs + t * width + h * dim, w,
                               rstds[t * heads + h], dim);
          } else {
            rotate_back(out + h * dim, row + h * dim, cos, sin, half);
          }
        }
        std::memcpy(out + heads * dim, row + heads * dim, static_cast<std::size_t>(width - heads * dim) * sizeof(T));
      }
    }
  });
  if (wq) blocks.total(dwq.data<float>(), 0, dim);
  if (wk) blocks.total(dwk.data<float>(), dim, dim);
}

}  // namespace switchyard::cpu
