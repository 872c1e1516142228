#pragma once

#include "optim/optimizer.h"

namespace switchyard {

// AdamW (Loshchilov and Hutter, arXiv 1711.05101) on f32 masters, one pass over memory. With g the scaled gradient and
// t the updates done, this one among them:
//   m = beta1 m + (1 - beta1) g        v = beta2 v + (1 - beta2) g^2
//   p -= lr (m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps) + decay p)
// Only parameters with Decay::yes decay.
class AdamW : public Optimizer {
 public:
  AdamW(Parameters parameters, const OptimConfig& config);

  // Both moments of every parameter, in the parameters' order: "exp_avg" and "exp_avg_sq".
  std::vector<OptimizerState> states() const override;

 private:
  struct Moments {
    Tensor m, v;
  };

  void update(double lr, const Tensor& grad_scale_1) override;

  Parameters parameters_;
  OptimConfig config_;
  std::vector<Moments> moments_;  // beside parameters_
};

}  // namespace switchyard
