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

}  // namespace switchyard
