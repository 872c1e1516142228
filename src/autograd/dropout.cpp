#include "autograd/ops.h"

namespace switchyard {

// y = x m / (1 - rate), m the mask of 0 and 1, which is made again and not kept        dx = dy m / (1 - rate)
Variable dropout(const Variable& x_RF, Tensor id_R, Tensor order_R, DropoutMask mask) {
  SY_CHECK(x_RF.shape().rank() == 2 && id_R.numel() == x_RF.shape()[0] && (!order_R || order_R.numel() == id_R.numel()),
           "dropout: rows ", x_RF.shape(), " and names ", id_R.shape());
  SY_CHECK(mask.rate >= 0 && mask.rate < 1, "dropout: a rate of ", mask.rate);
  const Kernels& k = kernels(x_RF.device());
  Tensor y_RF = empty_like(x_RF.value());
  k.dropout(y_RF, x_RF.value(), id_R, order_R, mask);
  return record("dropout", y_RF, {x_RF}, [&k, id_R, order_R, mask](const Tensor& dy_RF) -> Grads {
    Tensor dx_RF = empty_like(dy_RF);
    k.dropout(dx_RF, dy_RF, id_R, order_R, mask);
    return {dx_RF};
  });
}

}  // namespace switchyard
