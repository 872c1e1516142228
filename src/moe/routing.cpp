#include "moe/routing.h"

namespace switchyard {

RoutingStats RoutingStats::none(std::int64_t experts, Device device) {
  const auto zeros = [&](std::int64_t n, DType dtype) { return Tensor::zeros({n}, dtype, device); };
  return {.kept_E = zeros(experts, DType::i32),
          .balance_1 = zeros(1, DType::f32),
          .z_1 = zeros(1, DType::f32),
          .entropy_1 = zeros(1, DType::f32)};
}

}  // namespace switchyard
