#include "autograd/ops.h"

namespace switchyard {
namespace {

void check_shapes(const char* op, const Variable& x, const Variable& w) {
  SY_CHECK(x.shape().rank() == 2 && w.shape().rank() == 2 && x.shape()[1] == w.shape()[1], op, ": x ", x.shape(),
           " does not fit w ", w.shape());
}

Tensor weight_gradient(const Tensor& dy_RO, const Tensor& x_RI) {
  Tensor dw_OI = Tensor::empty({dy_RO.dim(1), x_RI.dim(1)}, DType::f32, x_RI.device(), Memory::gradients);
  kernels(x_RI.device()).matmul(dw_OI, dy_RO, x_RI, Trans::yes, Trans::no, Into::overwrite);
  return dw_OI;
}

}  // namespace

// y = x w^T        dx = dy w        dw = dy^T x
Variable linear(const Variable& x, const Variable& w) {
  check_shapes("linear", x, w);
  SY_CHECK(w.dtype() == DType::f32 || w.dtype() == x.dtype(), "linear: the parameter is ", w.dtype(), ", x ",
           x.dtype());
  const Kernels& k = kernels(x.device());
  const Weight& weight = w.weight(x.dtype());

  Tensor y_RO = Tensor::empty({x.shape()[0], w.shape()[0]}, x.dtype(), x.device());
  k.weight_matmul(y_RO, x.value(), weight, Trans::yes);

  // Each gradient needs the other factor only: an empty one means that nobody asked.
  const Tensor x_RI = w.requires_grad() ? x.value() : Tensor{};
  const Weight w_OI = x.requires_grad() ? weight : Weight{};
  return record("linear", y_RO, {x, w}, [&k, x_RI, w_OI](const Tensor& dy_RO) -> Grads {
    Tensor dx_RI;
    if (w_OI) {
      dx_RI = Tensor::empty({dy_RO.dim(0), w_OI.shape[1]}, dy_RO.dtype(), dy_RO.device());
      k.weight_matmul(dx_RI, dy_RO, w_OI, Trans::no);
    }
    return {dx_RI, x_RI ? weight_gradient(dy_RO, x_RI) : Tensor{}};
  });
}

// The same with x cast to f32 and the f32 master; dx is rounded to the type of x.
Variable linear_f32(const Variable& x, const Variable& w) {
  check_shapes("linear_f32", x, w);
  SY_CHECK(w.dtype() == DType::f32, "linear_f32: the parameter is ", w.dtype(), ", wanted its f32 master");
  const Kernels& k = kernels(x.device());

  Tensor y_RO = Tensor::empty({x.shape()[0], w.shape()[0]}, DType::f32, x.device());
  k.matmul(y_RO, cast(x.value(), DType::f32), w.value(), Trans::no, Trans::yes, Into::overwrite);

  const Tensor x_RI = w.requires_grad() ? x.value() : Tensor{}, w_OI = x.requires_grad() ? w.value() : Tensor{};
  return record("linear_f32", y_RO, {x, w}, [&k, x_RI, w_OI, x_dtype = x.dtype()](const Tensor& dy_RO) -> Grads {
    Tensor dx_RI;
    if (w_OI) {
      dx_RI = Tensor::empty({dy_RO.dim(0), w_OI.dim(1)}, DType::f32, dy_RO.device());
      k.matmul(dx_RI, dy_RO, w_OI, Trans::no, Trans::no, Into::overwrite);
      dx_RI = cast(dx_RI, x_dtype);
    }
    return {dx_RI, x_RI ? weight_gradient(dy_RO, cast(x_RI, DType::f32)) : Tensor{}};
  });
}

}  // namespace switchyard
