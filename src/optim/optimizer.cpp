#include "optim/optimizer.h"

#include "optim/adafactor.h"
#include "optim/adamw.h"

namespace switchyard {

std::unique_ptr<Optimizer> make_optimizer(const OptimConfig& config, Shards& shards, Mesh& mesh) {
  if (config.kind == OptimKind::adafactor) return std::make_unique<Adafactor>(shards, mesh, config);
  return std::make_unique<AdamW>(shards.masters(), config);
}

OptimizerState state_like(const Parameter& p, const char* moment, const Tensor& value) {
  return {.name = text("optimizer.", moment, ".", p.name),
          .value = value,
          .global_shape = p.global_shape,
          .boxes = p.boxes,
          .replicas = p.replicas};
}

Tensor gradient_or_zeros(const Variable& parameter) {
  return parameter.grad() ? parameter.grad() : zeros_like(parameter.value());
}

void check_masters(const Parameters& parameters, const char* optimizer) {
  for (const Parameter& p : parameters) {
    SY_CHECK(p.variable.dtype() == DType::f32, optimizer, ": ", p.name, " is ", p.variable.dtype(),
             ", not an f32 master");
    SY_CHECK(p.variable.device() == parameters[0].variable.device(), optimizer, ": ", p.name, " lives on ",
             p.variable.device(), ", ", parameters[0].name, " on ", parameters[0].variable.device());
  }
}

}  // namespace switchyard
