#include "autograd/ops.h"

namespace switchyard {

// y = a + b        da = db = dy
Variable add(const Variable& a, const Variable& b) {
  SY_CHECK(a.shape() == b.shape() && a.dtype() == b.dtype(), "add: ", a.shape(), " ", a.dtype(), " and ", b.shape(),
           " ", b.dtype());
  const Kernels& k = kernels(a.device());

  Tensor y = empty_like(a.value());
  k.copy(y, a.value());
  k.add(y, b.value());

  return record("add", y, {a, b}, [](const Tensor& dy) -> Grads { return {dy, dy}; });
}

}  // namespace switchyard
