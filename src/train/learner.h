#pragma once

#include <memory>

#include "data/loader.h"
#include "dist/gradients.h"
#include "model/pipeline.h"
#include "optim/optimizer.h"
#include "train/config.h"
#include "train/metrics.h"
#include "train/state.h"

namespace switchyard {

// A model that learns: with its optimizer and its data on this rank's part of the mesh. Knows what a step computes, and
// nothing of files, clocks or how many steps there are to be. The same calls on every rank.
class Learner {
 public:
  // The configuration is resolved. The world outlives the learner.
  Learner(const Config& config, ProcessGroup& world);

  // Step `step`, counted from 0, on its global batch: backward, then update. Throws Error (Fault::numeric), with
  // nothing updated, when the loss or a gradient is not finite. Leaves step, tokens and time of the metrics to others.
  StepMetrics step(std::int64_t step) { return update(step, backward(step)); }
  // The gradients of the step's batch, summed over the ranks, and what its losses add up to.
  StepSums backward(std::int64_t step);
  StepMetrics update(std::int64_t step, const StepSums& sums);

  // What the coefficients of balance losses are multiplied with from the next step on.
  float balance_scale() const { return balance_scale_; }
  void set_balance_scale(float scale) { balance_scale_ = scale; }

  // Everything that a checkpoint holds: parameters, the optimizer's states and the model's.
  std::vector<LogicalTensor> tensors();
  // Call after values were copied into tensors().
  void tensors_changed();

  Device device() const { return device_; }
  Mesh& mesh() { return mesh_; }
  Transformer& model() { return model_; }
  Pipeline& pipeline() { return pipeline_; }
  // The f32 masters and, after backward(), the sums of their gradients: of all parameters that this rank holds, or of
  // its own parts of them.
  Parameters& masters() { return shards_.masters(); }
  Optimizer& optimizer() { return *optimizer_; }
  const Loader& loader() const { return loader_; }

 private:
  // Whether the routers' health is read in this step.
  bool observes(std::int64_t step) const { return config_.health.every > 0 && (step + 1) % config_.health.every == 0; }
  std::vector<LayerHealth> read_health(const StepSums& sums);

  Config config_;
  Device device_;
  std::unique_ptr<ProcessGroup> device_world_;
  Mesh mesh_;
  Transformer model_;
  Pipeline pipeline_;
  Shards shards_;
  GradientBuckets gradients_;
  std::unique_ptr<Optimizer> optimizer_;
  Loader loader_;
  float balance_scale_ = 1;
  bool has_reading_ = false;  // of the routers' health
};

}  // namespace switchyard
