#include "autograd/ops.h"

namespace switchyard {

// y[r] = x[r] w[e]^T for the rows r of expert e        dx[r] = dy[r] w[e]        dw[e] = dy[e]^T x[e]
// An expert without rows has a zero gradient.
Variable grouped_linear(const Variable& x, const Variable& w, Tensor offsets, std::int64_t rows_each) {
  SY_CHECK(x.shape().rank() == 2 && w.shape().rank() == 3 && x.shape()[1] == w.shape()[2], "grouped_linear: x ",
           x.shape(), " does not fit w ", w.shape());
  if (offsets || rows_each == 0)
    SY_CHECK(offsets && offsets.dtype() == DType::i32 && offsets.numel() == w.shape()[0] + 1,
             "grouped_linear: ", offsets.dtype(), " offsets ", offsets.shape(), " for ", w.shape()[0], " experts");
  SY_CHECK(rows_each >= 0 && (rows_each == 0 || x.shape()[0] == w.shape()[0] * rows_each), "grouped_linear: x ",
           x.shape(), " is not ", rows_each, " rows each for ", w.shape()[0], " experts");
  SY_CHECK(w.dtype() == DType::f32 || w.dtype() == x.dtype(), "grouped_linear: the parameter is ", w.dtype(), ", x ",
           x.dtype());
  const Kernels& k = kernels(x.device());
  const Weight& weight = w.weight(x.dtype());

  Tensor y_RO = Tensor::empty({x.shape()[0], w.shape()[1]}, x.dtype(), x.device());
  k.grouped_matmul(y_RO, x.value(), weight, offsets, rows_each, Trans::yes);

  // Each gradient needs the other factor only: an empty one means that nobody asked.
  const Tensor x_RI = w.requires_grad() ? x.value() : Tensor{};
  const Weight w_EOI = x.requires_grad() ? weight : Weight{};
  return record("grouped_linear", y_RO, {x, w},
                [&k, x_RI, w_EOI, offsets, rows_each, w_shape = w.shape()](const Tensor& dy_RO) -> Grads {
                  Tensor dx_RI, dw_EOI;
                  if (w_EOI) {
                    dx_RI = Tensor::empty({dy_RO.dim(0), w_shape[2]}, dy_RO.dtype(), dy_RO.device());
                    k.grouped_matmul(dx_RI, dy_RO, w_EOI, offsets, rows_each, Trans::no);
                  }
                  if (x_RI) {
                    dw_EOI = Tensor::empty(w_shape, DType::f32, dy_RO.device(), Memory::gradients);
                    k.grouped_matmul_dw(dw_EOI, dy_RO, x_RI, offsets, rows_each, Into::overwrite);
                  }
                  return {dx_RI, dw_EOI};
                });
}

}  // namespace switchyard
