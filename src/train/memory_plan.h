#pragma once

#include <array>

#include "tensor/memory.h"
#include "train/config.h"

namespace switchyard {

// Bytes that a rank of `world_size` is to need, by kind, worked out from the configuration alone.
struct MemoryPlan {
  std::array<std::int64_t, kMemoryKinds> bytes{};
};

// The configuration is resolved for world_size ranks. With P parameters on the rank (its share of the experts), of
// which M are matrices that products read:
//   parameters   4 P, and 4 M for the two packed bf16 copies of a matrix where rows are bf16
//   gradients    4 P
//   optimizer    8 P
//   activations  of one micro-batch: what each op keeps for backward (docs/memory.md), experts evenly loaded
//   communication  one bucket of gradients where there are replicas
MemoryPlan plan_memory(const Config& config, int world_size);

}  // namespace switchyard
