#pragma once

#include <vector>

#include "dist/shards.h"
#include "model/held.h"
#include "train/planned_rows.h"

namespace switchyard {

// Bytes of a tensor that ranks without a GPU sum at once.
inline constexpr std::int64_t kSummedPiece = 4 << 20;

// A bucket as it travels.
struct PlannedBucket {
  Replicas replicas;
  int ranks;
  std::int64_t elements, share;
  std::int64_t value_size;  // bytes of what comes back from owners, an element
};

// What Adafactor sums over ranks, of the parameters of one kind of replicas.
struct PlannedMatrices {
  Replicas replicas;
  std::int64_t numbers, matrices;  // rows and columns, and what has them
};

// What a rank of a stage keeps from step to step, in bytes as the allocator counts them, and what it sends of it. With
// P parameters on the rank, M of them in matrices that products read, and P / n of them its own where n ranks hold a
// parameter (each kind of parameter has its own n):
//   parameters     4 P, and, where rows are bf16, compute copies: 2 M, or on the CPU 4 M for two packed ones
//   gradients      4 P
//   optimizer      8 P; Adafactor 8 for each row and column of its matrices and 8 for each matrix, and 4 P where it
//   keeps
//                  first moments
// With a shared-out optimizer, of all that n > 1 ranks hold:
//   parameters     in bf16 2 + 4 / n a parameter instead of 4, for the rounded value, which on a GPU is also the
//   compute
//                  copy, and the masters; norms and routers keep 4
//   gradients      where one micro-batch makes a step only what has not left: the open buckets, and what is owned
//   optimizer      8 P / n; Adafactor's first moments 4 P / n
// And always:
//   checkpoint     12 bytes for each parameter that this rank writes, 4 or 8 with Adafactor and 4 for what it keeps of
//                  rows and columns, on the host, where saves are in the background
//   communication  one bucket of gradients where several ranks hold it, two where they travel beside the backward pass;
//                  on the CPU also a piece of one
struct StatePlan {
  std::int64_t held = 0, own = 0;  // parameters: on this rank, and those of which it has the optimizer's states
  std::int64_t parameters = 0, optimizer = 0, checkpoint = 0, communication = 0;
  // Gradients: of all, at most where they leave in the one backward pass of a step, of the head, of each block of the
  // stage, of the largest parameter, of the embedding table.
  std::int64_t gradients = 0, leaving_gradients = 0, head_gradient = 0, largest_gradient = 0, table_gradient = 0;
  std::vector<std::int64_t> block_gradients{};
  std::vector<bool> is_moe{};                // by block of the stage
  std::int64_t moe_blocks = 0, all_moe = 0;  // of the stage, and of the model
  std::vector<PlannedBucket> buckets{};      // that several ranks hold
  std::vector<PlannedMatrices> matrices{};   // of Adafactor
};

// The ranks that hold the same slice of a parameter.
int holders(Replicas replicas, const ParallelConfig& resolved);

StatePlan plan_state(const Config& resolved, const Stage& stage, int tensor_rank, const Assumptions& assumptions);

}  // namespace switchyard
