#include "autograd/ops.h"

namespace switchyard {

// y = x * rstd * w        rstd = 1 / sqrt(mean(x^2) + eps), one per row, kept for backward
Variable rms_norm(const Variable& x, const Variable& w, float eps) {
  SY_CHECK(x.shape().rank() == 2 && w.shape() == Shape{x.shape()[1]}, "rms_norm: x ", x.shape(), " does not fit w ",
           w.shape());
  const Kernels& k = kernels(x.device());

  Tensor y = empty_like(x.value());
  Tensor rstd_R = Tensor::empty({x.shape()[0]}, DType::f32, x.device());
  k.rms_norm(y, rstd_R, x.value(), w.value(), eps);

  return record("rms_norm", y, {x, w}, [&k, x = x.value(), w = w.value(), rstd_R](const Tensor& dy) -> Grads {
    Tensor dx = empty_like(x);
    Tensor dw = Tensor::empty(w.shape(), DType::f32, w.device(), Memory::gradients);
    k.rms_norm_backward(dx, dw, dy, x, w, rstd_R);
    return {dx, dw};
  });
}

// sum = a + b, y = rms_norm(sum)        da = db = dsum + rms_norm's dx, one tensor
AddNorm add_rms_norm(const Variable& a, const Variable& b, const Variable& w, float eps) {
  SY_CHECK(a.shape() == b.shape() && a.dtype() == b.dtype(), "add_rms_norm: ", a.shape(), " ", a.dtype(), " and ",
           b.shape(), " ", b.dtype());
  SY_CHECK(a.shape().rank() == 2 && w.shape() == Shape{a.shape()[1]}, "add_rms_norm: rows ", a.shape(),
           " do not fit w ", w.shape());
  const Kernels& k = kernels(a.device());

  Tensor sum = empty_like(a.value()), y = empty_like(a.value());
  Tensor rstd_R = Tensor::empty({a.shape()[0]}, DType::f32, a.device());
  k.add_rms_norm(y, sum, rstd_R, a.value(), b.value(), w.value(), eps);

  const auto [x, normed] = record("add_rms_norm", sum, y, {a, b, w},
                                  [&k, sum, w = w.value(), rstd_R](const Tensor& dsum, const Tensor& dy) -> Grads {
                                    if (!dy) return {dsum, dsum, {}};
                                    Tensor dx = empty_like(sum);
                                    Tensor dw = Tensor::empty(w.shape(), DType::f32, w.device(), Memory::gradients);
                                    k.add_rms_norm_backward(dx, dw, dy, dsum, sum, w, rstd_R);
                                    return {dx, dx, dw};
                                  });
  return {x, normed};
}

}  // namespace switchyard
