#pragma once

#include <optional>
#include <string>
#include <vector>

#include "train/memory_plan.h"
#include "train/time_plan.h"

namespace switchyard {

// A layout with the parts that a step's samples are computed in and what is computed again: what it needs and takes.
struct LayoutPlan {
  ParallelConfig parallel;
  std::int64_t micro_batch = 0;
  Recompute recompute = Recompute::none;
  MemoryPlan memory;                      // of the stage whose ranks need most
  TimePlan time;                          // of the slowest stage
  std::vector<PlannedTraffic> traffic{};  // of a rank of that
  double utilisation = 0;                 // model FLOP/s of all ranks over their peak

  bool fits(const Hardware& hardware) const {
    return static_cast<double>(memory.together) <= hardware.memory * (1 << 30);
  }
};

// The configuration's own layout, which is resolved and fits its ranks.
LayoutPlan plan_layout(const Config& config, const Hardware& hardware, const Assumptions& assumptions);

// Every legal layout of so many ranks (layouts_of), each with the micro-batch and recomputation that make it fastest
// among those that fit, or, where none fits, that need least; those that fit first, fastest first, then by memory.
std::vector<LayoutPlan> search_layouts(const Config& config, int ranks, const Hardware& hardware,
                                       const Assumptions& assumptions);

// Every layout of exactly so many ranks that the rules allow for some micro-batch, whatever the configuration's own
// `parallel` and `train.micro_batch` say; of several ranks each without and with a shared-out optimizer.
std::vector<ParallelConfig> layouts_of(const Config& config, int ranks);

}  // namespace switchyard
