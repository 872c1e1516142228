#include <algorithm>
#include <cmath>
#include <limits>

#include "tensor/cpu/block_sum.h"
#include "tensor/cpu/kernels.h"
#include "tensor/cpu/simd.h"

namespace switchyard::cpu {
namespace {

// Loshchilov and Hutter, "Decoupled weight decay regularization", algorithm 2. The two bias corrections are folded into
// the step size and the root, which leaves one division and one square root an element: 28 bytes travel for them.
// simdlen(16): with AVX-512 the compiler's usual half registers keep too few lines in flight, 2/3 of a copy's
// bandwidth.
void adamw_tensor(const AdamWTensors& tensors, const AdamWStep& s, float grad_scale) {
  Tensor param = tensors.param, first = tensors.m, second = tensors.v;
  float *p = param.data<float>(), *m = first.data<float>(), *v = second.data<float>();
  const float* grad = tensors.grad.data<float>();
  const float step = s.lr / s.bias1, unbias = 1 / s.bias2, shrink = s.lr * tensors.weight_decay;
  const std::int64_t n = param.numel();
#pragma omp parallel for simd simdlen(16) schedule(simd : static) if (n > kParallelElements)
  for (std::int64_t i = 0; i < n; ++i) {
    const float g = grad_scale * grad[i];
    m[i] = s.beta1 * m[i] + (1 - s.beta1) * g;
    v[i] = s.beta2 * v[i] + (1 - s.beta2) * (g * g);
    p[i] -= step * m[i] / (std::sqrt(v[i] * unbias) + s.eps) + shrink * p[i];  // 1 - shrink would round 1e-6 by 3%
  }
}

}  // namespace

void adamw(std::span<const AdamWTensors> tensors, const AdamWStep& step, const Tensor& grad_scale_1) {
  const float grad_scale = grad_scale_1.data<float>()[0];
  if (!std::isfinite(grad_scale)) return;
  for (const AdamWTensors& t : tensors) {
    adamw_tensor(t, step, grad_scale);
    if (t.weight && t.weight->dtype != DType::f32) pack(*t.weight, t.param);
  }
}

void sum_squares(Tensor& y_1, std::span<const Tensor> xs) {
  double total = 0;
  for (const Tensor& x : xs) {
    const float* values = x.data<float>();
    total += block_sum(x.numel(), kParallelElements, [values](std::int64_t begin, std::int64_t end) {
      return double_sum(begin, end, [values](std::int64_t i) { return static_cast<double>(values[i]) * values[i]; });
    });
  }
  y_1.data<float>()[0] = static_cast<float>(total);
}

void clip_factor(Tensor& factor_1, const Tensor& squares, float clip) {
  double sum = 0;
  for (std::int64_t i = 0; i < squares.numel(); ++i) sum += static_cast<double>(squares.data<float>()[i]);
  const double norm = std::sqrt(sum), factor = clip > 0 ? std::min(1.0, clip / (norm + 1e-6)) : 1.0;
  factor_1.data<float>()[0] =
      std::isfinite(norm) ? static_cast<float>(factor) : std::numeric_limits<float>::quiet_NaN();
}

}  // namespace switchyard::cpu
