#pragma once

#include <string>
#include <vector>

#include "autograd/parameter.h"
#include "optim/config.h"

namespace switchyard {

// A tensor of the optimizer that belongs in a checkpoint: this rank's slice, cut like the parameter's (Parameter).
struct OptimizerState {
  std::string name;  // "optimizer.exp_avg.<parameter>", "optimizer.exp_avg_sq.<parameter>"
  Tensor value;      // shares the optimizer's memory: what is copied into it counts
  Shape global_shape;
  std::vector<Box> boxes;
  Replicas replicas = Replicas::tokens;
};

// AdamW (Loshchilov and Hutter, arXiv 1711.05101) on f32 masters, one pass over memory. With g the scaled gradient and
// t the updates done, this one among them:
//   m = beta1 m + (1 - beta1) g        v = beta2 v + (1 - beta2) g^2
//   p -= lr (m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps) + decay p)
// and writes the compute copy of p anew. Only parameters with Decay::yes decay.
class AdamW {
 public:
  AdamW(Parameters parameters, const OptimConfig& config);

  // Updates every parameter by its gradient * grad_scale_1, an f32 scalar on the parameters' device. A parameter
  // without a gradient counts as having zeros, so that its moments stay equal on all ranks that hold it.
  void step(double lr, const Tensor& grad_scale_1);

  // Updates done so far; a resumed run sets it together with the states.
  std::int64_t steps() const { return steps_; }
  void set_steps(std::int64_t steps);
  // Both moments of every parameter, in the parameters' order.
  std::vector<OptimizerState> states() const;

 private:
  struct Moments {
    Tensor m, v;
  };

  Parameters parameters_;
  OptimConfig config_;
  std::vector<Moments> moments_;  // beside parameters_
  std::int64_t steps_ = 0;
};

}  // namespace switchyard
