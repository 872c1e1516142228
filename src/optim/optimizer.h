#pragma once

#include <memory>
#include <string>
#include <vector>

#include "dist/shards.h"
#include "optim/config.h"

namespace switchyard {

// A tensor of the optimizer that belongs in a checkpoint: this rank's slice of a logical tensor, as a Parameter is one.
struct OptimizerState {
  std::string name;  // "optimizer.exp_avg.<parameter>"
  Tensor value;      // shares the optimizer's memory: what is copied into it counts
  Shape global_shape;
  std::vector<Box> boxes;
  Replicas replicas = Replicas::tokens;  // the ranks that hold the same slice,
  bool is_cut = true;  // and where not cut like the parameter, those too that have other cuts of that (Replicas::data)
};

// What turns gradients into steps of f32 masters. The same calls on every rank.
class Optimizer {
 public:
  virtual ~Optimizer() = default;

  // Updates every parameter by its gradient * grad_scale_1, an f32 scalar on the parameters' device, and writes its
  // compute copy anew. Where the scale is not finite nothing changes. A parameter without a gradient counts as having
  // zeros, so that its states stay equal on all ranks that hold it.
  void step(double lr, const Tensor& grad_scale_1) {
    ++steps_;
    update(lr, grad_scale_1);
  }

  // Updates done so far; a resumed run sets it together with the states.
  std::int64_t steps() const { return steps_; }
  void set_steps(std::int64_t steps) {
    SY_CHECK(steps >= 0, "optimizer: ", steps, " steps done");
    steps_ = steps;
  }
  // In the same order on all ranks that hold the same parameters.
  virtual std::vector<OptimizerState> states() const = 0;

 private:
  virtual void update(double lr, const Tensor& grad_scale_1) = 0;

  std::int64_t steps_ = 0;
};

// Of the kind that the configuration names, on the shards' masters. Shards and mesh outlive it.
std::unique_ptr<Optimizer> make_optimizer(const OptimConfig& config, Shards& shards, Mesh& mesh);

// One of an optimizer's tensors of a parameter's size, cut like it.
OptimizerState state_like(const Parameter& parameter, const char* moment, const Tensor& value);
// The gradient, or zeros where there is none.
Tensor gradient_or_zeros(const Variable& parameter);
// Refuses parameters that are not f32 or live on several devices.
void check_masters(const Parameters& parameters, const char* optimizer);

}  // namespace switchyard
