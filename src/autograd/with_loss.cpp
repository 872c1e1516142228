#include "autograd/ops.h"

namespace switchyard {

// y = x        dx = dy, dloss = 1
Variable with_loss(const Variable& x, const Variable& loss_1) {
  SY_CHECK(loss_1.shape() == Shape({1}) && loss_1.dtype() == DType::f32, "with_loss: ", loss_1.shape(), " ",
           loss_1.dtype());
  constexpr float kOne = 1;
  return record("with_loss", x.value(), {x, loss_1},
                [one = Tensor::of(std::span<const float>(&kOne, 1), {1}, x.device())](const Tensor& dy) -> Grads {
                  return {dy, one};
                });
}

}  // namespace switchyard
