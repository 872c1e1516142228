#pragma once

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "dist/process_group.h"
#include "model/transformer.h"
#include "train/alarms.h"

namespace switchyard {

// What one optimizer step tells, one JSON object of metrics.jsonl. Losses are means over the global batch.
struct StepMetrics {
  std::int64_t step = 0;    // steps done
  std::int64_t tokens = 0;  // target tokens seen since the run began
  double loss = 0;          // cross-entropy, nats a token
  double balance_loss = 0;  // mean over MoE blocks, coefficient left out; uniform: 1, or top_k where all choices count
  double z_loss = 0;        // likewise
  double lr = 0;
  double grad_norm = 0;  // before clipping
  double tokens_per_second = 0;
  double drop_fraction = 0;                        // of choices that chance left, over all MoE blocks
  double router_entropy = 0;                       // nats, mean over tokens and MoE blocks
  std::vector<std::vector<double>> expert_load{};  // by MoE block: share of all choices that each expert took
  std::optional<double> val_loss{};
  std::vector<LayerHealth> router{};  // by MoE block, at steps whose health is read
  std::vector<Alarm> alarms{};
};

std::string to_json(const StepMetrics& metrics);
std::string to_json(const LayerHealth& layer);  // an object of its `router`

// Adds up what the micro-batches of a step tell on this rank, and then over the ranks. Until then nothing is read from
// the device, so that the host need not wait for it within the step.
class StepSums {
 public:
  void add(const ModelResult& result);
  // What this rank's routers saw, by micro-batch and MoE block.
  const std::vector<std::vector<RoutingStats>>& stats() const { return stats_; }
  // Fills loss, balance_loss, z_loss, drop_fraction, router_entropy and expert_load. One all-reduce; every rank calls.
  void reduce_into(StepMetrics& metrics, ProcessGroup& world) const;

 private:
  std::vector<Tensor> losses_;  // by micro-batch
  std::vector<std::vector<RoutingStats>> stats_;
};

// metrics.jsonl of a run: one object a step. A resumed run goes on after the step that it resumed from; what an
// interrupted one had written beyond that is cut off.
class MetricsLog {
 public:
  MetricsLog(std::filesystem::path path, std::int64_t resumed_step);
  void write(const StepMetrics& metrics);

 private:
  std::ofstream out_;
  std::filesystem::path path_;
};

}  // namespace switchyard
