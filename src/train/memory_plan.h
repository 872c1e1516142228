#pragma once

#include <array>

#include "tensor/memory.h"
#include "train/config.h"

namespace switchyard {

// Bytes that a rank of `world_size` is to need, by kind, worked out from the configuration alone.
struct MemoryPlan {
  std::array<std::int64_t, kMemoryKinds> bytes{};
};

// The configuration is resolved for world_size ranks. With P parameters on the rank (its parts of dense layers and its
// share of the experts), M of them in matrices that products read, and P / n of them its own, where n ranks hold a
// parameter (each kind of parameter has its own n):
//   parameters     4 P, and 4 M for the two packed bf16 copies of each matrix where rows are bf16
//   gradients      4 P
//   optimizer      8 P
// With a shared-out optimizer (parallel.shard_optimizer), of all that n > 1 ranks hold:
//   parameters     in bf16 2 + 4 / n a parameter instead of 4, for the rounded value and the masters; norms and routers
//                  keep 4
//   gradients      1 / n of a bucket more, where the first sums arrive; less where one micro-batch makes a step
//   optimizer      8 P / n
// And always:
//   activations    of one micro-batch: what each op keeps for backward, experts evenly loaded, and the widest block's
//                  gradients, which live while backward passes it
//   checkpoint     12 bytes for each parameter that this rank writes, on the host, where saves are in the background
//   communication  one bucket of gradients where there are several ranks
// Blocks of the allocator are rounded up by at most an eighth, which this leaves out.
MemoryPlan plan_memory(const Config& config, int world_size);

}  // namespace switchyard
