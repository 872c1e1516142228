#include "optim/adamw.h"

#include <cmath>

#include "tensor/kernels.h"

namespace switchyard {

AdamW::AdamW(Parameters parameters, const OptimConfig& config) : parameters_(std::move(parameters)), config_(config) {
  check_masters(parameters_, "AdamW");
  for (const Parameter& p : parameters_) {
    const auto zeros = [&] {
      return Tensor::zeros(p.variable.shape(), DType::f32, p.variable.device(), Memory::optimizer);
    };
    moments_.push_back({.m = zeros(), .v = zeros()});
  }
}

void AdamW::update(double lr, const Tensor& grad_scale_1) {
  AdamWStep step{.lr = static_cast<float>(lr),
                 .beta1 = static_cast<float>(config_.beta1),
                 .beta2 = static_cast<float>(config_.beta2),
                 .eps = static_cast<float>(config_.eps)};
  // From the betas as the kernel rounds them: 1 - 0.999f is off by 1e-5, and the correction must cancel exactly that.
  const auto t = static_cast<double>(steps());
  step.bias1 = static_cast<float>(1 - std::pow(static_cast<double>(step.beta1), t));
  step.bias2 = static_cast<float>(1 - std::pow(static_cast<double>(step.beta2), t));

  std::vector<AdamWTensors> tensors;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    Variable& p = parameters_[i].variable;
    const bool decays = parameters_[i].decay == Decay::yes;
    tensors.push_back({.param = p.value(),
                       .m = moments_[i].m,
                       .v = moments_[i].v,
                       .grad = gradient_or_zeros(p),
                       .weight = p.compute_copy(),
                       .weight_decay = decays ? static_cast<float>(config_.weight_decay) : 0});
  }
  kernels(grad_scale_1.device()).adamw(tensors, step, grad_scale_1);
}

std::vector<OptimizerState> AdamW::states() const {
  std::vector<OptimizerState> states;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    states.push_back(state_like(parameters_[i], "exp_avg", moments_[i].m));
    states.push_back(state_like(parameters_[i], "exp_avg_sq", moments_[i].v));
  }
  return states;
}

}  // namespace switchyard
