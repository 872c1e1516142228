#include "train/learner.h"

#include <cmath>

#include "dist/checked_group.h"
#include "dist/device_group.h"
#include "optim/clip.h"
#include "optim/schedule.h"
#include "train/setup.h"

namespace switchyard {
namespace {

std::unique_ptr<ProcessGroup> make_world(const Config& config, ProcessGroup& world, Device device) {
  auto device_world = make_device_world(world, device, config.parallel.timeout_s);
  return config.debug.collectives ? make_checked_group(std::move(device_world)) : std::move(device_world);
}

}  // namespace

Learner::Learner(const Config& config, ProcessGroup& world)
    : config_(config),
      device_(choose_device(config.run.device, world)),
      device_world_(make_world(config, world, device_)),
      mesh_(config.parallel, *device_world_),
      model_((share_cores(config.run.threads, world), make_model(config, device_, mesh_))),
      pipeline_(model_, mesh_),
      shards_(model_.parameters(), mesh_, kBucketBytes, config.parallel.shard_optimizer ? Masters::own : Masters::whole,
              row_type(config.run.precision)),
      gradients_(shards_),
      optimizer_(make_optimizer(config.optim, shards_, mesh_)),
      loader_(config.data.train, {.seq_len = config.train.seq_len,
                                  .global_batch = config.train.global_batch,
                                  .vocab_size = config.model.vocab_size,
                                  .seed = config.run.seed}) {}

// Micro-batch by micro-batch the data ranks take neighbouring parts, so that each is the same samples on every layout.
StepSums Learner::backward(std::int64_t step) {
  const TrainConfig& train = config_.train;
  const float share = 1.0f / static_cast<float>(train.global_batch * train.seq_len);
  const std::int64_t part_samples = train.micro_batch * mesh_.data->size();
  StepSums sums;
  pipeline_.step({.micro_batches = train.global_batch / part_samples,
                  .batch = [&](std::int64_t i) -> MicroBatch {
                    const std::int64_t first = i * part_samples + train.micro_batch * mesh_.data->rank();
                    const Batch batch = loader_.batch(step, first, train.micro_batch);
                    return {batch.tokens_T,
                            batch.targets_T,
                            {.batch = train.micro_batch,
                             .seq = train.seq_len,
                             .share = share,
                             .recompute = train.recompute,
                             .balance_scale = balance_scale_,
                             .observe = observes(step),
                             .step = step,
                             .first_token = first * train.seq_len}};
                  },
                  .forward = [&](const ModelResult& result) { sums.add(result); },
                  .last_backward = [&] { gradients_.arm(); }});
  gradients_.finish();
  return sums;
}

std::vector<LogicalTensor> Learner::tensors() {
  std::vector<LogicalTensor> tensors = logical_tensors(shards_.masters(), *optimizer_, mesh_);
  for (const LogicalTensor& state : logical_tensors(model_.states(), mesh_)) tensors.push_back(state);
  return tensors;
}

void Learner::tensors_changed() {
  for (Parameter& p : shards_.masters()) p.variable.refresh_weight();
  shards_.gather();
}

// Compares with the weights of the reading before, and keeps those that the step's passes had.
std::vector<LayerHealth> Learner::read_health(const StepSums& sums) {
  HealthScope scope = health_scope(config_);
  scope.context.has_before = has_reading_;
  has_reading_ = true;
  return switchyard::read_health(sums.stats(), scope, *mesh_.world);
}

StepMetrics Learner::update(std::int64_t step, const StepSums& sums) {
  if (observes(step)) model_.remember_routers();
  const GradientNorm norm = gradient_norm(shards_.own(), device_, mesh_, config_.optim.clip);
  StepMetrics metrics{.lr = learning_rate(config_.optim, step, config_.train.steps)};
  optimizer_->step(metrics.lr, norm.grad_scale_1);  // changes nothing where the norm is not finite
  shards_.zero_grad();

  // The device has its whole step; only now does the host wait for it.
  sums.reduce_into(metrics, *mesh_.world);
  metrics.grad_norm = norm.norm();
  SY_REQUIRE(std::isfinite(metrics.loss) && std::isfinite(metrics.grad_norm), Fault::numeric, "step ", step + 1,
             ": the loss is ", metrics.loss, " and the gradient norm ", metrics.grad_norm,
             "; what was saved up to step ", step, " stands. A lower optim.lr or a longer warm-up often helps.");
  if (observes(step)) metrics.router = read_health(sums);
  model_.end_step();
  shards_.gather();
  return metrics;
}

}  // namespace switchyard
