#pragma once

#include <array>

#include "tensor/memory.h"
#include "train/activation_plan.h"
#include "train/state_plan.h"

namespace switchyard {

// Bytes that a rank is to need, by kind at the worst moment of each, and together at the worst moment of all: where
// activations are most gradients are few. What is on the host counts only where the device is the CPU.
struct MemoryPlan {
  std::array<std::int64_t, kMemoryKinds> bytes{};
  std::int64_t together = 0;

  std::int64_t operator[](Memory kind) const { return bytes[static_cast<std::size_t>(kind)]; }
};

// Worked out from the configuration alone, which is resolved for its ranks: state_plan.h and activation_plan.h say what
// counts. Of the stage whose ranks need most.
MemoryPlan plan_memory(const Config& config, const Assumptions& assumptions = {});

// Of one stage, the `stage`-th of parallel.pipeline.
MemoryPlan plan_memory(const Config& config, int stage, const Stage& blocks, const StatePlan& state,
                       const ActivationPlan& activations, const Assumptions& assumptions);

}  // namespace switchyard
