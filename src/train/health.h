#pragma once

#include "dist/process_group.h"
#include "moe/health.h"
#include "moe/routing.h"
#include "train/config.h"

namespace switchyard {

// Of the router in block `layer` of the model, counted from 0.
struct LayerHealth {
  std::int64_t layer = 0;
  RouterHealth health;
};

// What is read alike of every MoE block.
struct HealthScope {
  std::vector<std::int64_t> layers;  // the blocks, in order
  std::int64_t experts, choices;     // E, and K of a token; 1 where experts choose
  bool experts_choose = false;       // a row that an expert took is then a choice, and nothing is dropped
  HealthContext context;
};

// Of a first reading, by the (resolved) configuration.
HealthScope health_scope(const Config& config);

// The readings of a step whose passes observed: `stats` by micro-batch and MoE block, as this rank saw them. Two
// all-reduces; every rank calls and gets the same.
std::vector<LayerHealth> read_health(const std::vector<std::vector<RoutingStats>>& stats, const HealthScope& scope,
                                     ProcessGroup& world);

}  // namespace switchyard
