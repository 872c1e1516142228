#include "autograd/ops.h"

namespace switchyard {

// y = f(gate) * up where gated, x = [gate, up]:  dgate = dy up f'(gate), dup = dy f(gate)
// y = f(x) else:                                 dx = dy f'(x)
Variable activate(const Variable& x, Activation kind) {
  SY_CHECK(x.shape().rank() == 2 && (!is_gated(kind) || x.shape()[1] % 2 == 0), "activate: rows ", x.shape(),
           is_gated(kind) ? " have no two halves" : " are not a matrix");
  const Kernels& k = kernels(x.device());

  const std::int64_t width = is_gated(kind) ? x.shape()[1] / 2 : x.shape()[1];
  Tensor y = Tensor::empty({x.shape()[0], width}, x.dtype(), x.device());
  k.activation(y, x.value(), kind);

  return record("activate", y, {x}, [&k, x = x.value(), kind](const Tensor& dy) -> Grads {
    Tensor dx = empty_like(x);
    k.activation_backward(dx, dy, x, kind);
    return {dx};
  });
}

}  // namespace switchyard
