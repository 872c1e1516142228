#pragma once

#include "train/hardware.h"
#include "train/traffic_plan.h"

namespace switchyard {

// Seconds of a step, as docs/planning.md works them out. Parts add up to `step`.
struct TimePlan {
  double products = 0;    // matrix products and attention, forward and backward
  double passes = 0;      // over memory: norms, activations, routing, losses
  double again = 0;       // forward that backward runs again
  double tensor = 0;      // collectives of tensor parallelism
  double exchange = 0;    // rows to experts and back
  double neighbours = 0;  // rows to the next stage, gradients to the one before
  double gradients = 0;   // that the last backward pass does not hide
  double update = 0;      // the optimizer, and values that the next forward pass does not hide
  double waiting = 0;     // of the slowest stage for the others: the bubble
  double step = 0;
};

// One stage on the slowest of its ranks.
TimePlan plan_time(const Config& resolved, const Stage& blocks, const StatePlan& state,
                   const std::vector<PlannedTraffic>& traffic, int stage, const Hardware& hardware,
                   const Assumptions& assumptions);

// Seconds of a group's calls of one kind, of which a rank sends so many bytes.
double collective_seconds(const PlannedTraffic& traffic, const GroupShape& shape, const Hardware& hardware);

}  // namespace switchyard
