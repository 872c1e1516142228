#include "moe/routing.h"

namespace switchyard {

RoutingStats RoutingStats::none(std::int64_t experts, Device device) {
  const auto zero = [&] { return Tensor::zeros({1}, DType::f32, device); };
  return {.kept_PE = Tensor::zeros({1, experts}, DType::i32, device),
          .balance_1 = zero(),
          .z_1 = zero(),
          .balance_term_1 = zero(),
          .entropy_1 = zero()};
}

}  // namespace switchyard
