#pragma once

#include "model/config.h"
#include "moe/config.h"

namespace switchyard {

// Sizes of a model, worked out from its (resolved) configuration alone.
struct ModelCount {
  std::int64_t parameters = 0;         // all, tied matrices once
  std::int64_t active = 0;             // that a token meets: in each MoE block those of the experts that it goes to, on
                                       // average where experts choose; the table only as head
  std::int64_t expert_parameters = 0;  // in experts: those that expert parallelism spreads
  double flops_per_token = 0;          // model FLOPs of forward and backward
};

// The same of one block, MoE or dense, without the table.
ModelCount count_block(const ModelConfig& model, const MoeConfig& moe, bool is_moe, std::int64_t seq_len);

// FLOPs a token, forward and backward, = 6 N + 6 L S A, with N the active weights of products (no norms; the embedding
// table counts once, as the head), L blocks, S tokens of a sequence and A = n_heads head_dim: causal attention does
// half of the S x S products, 2 of them forward (4 S A / 2) and twice that backward. Recomputation, padding and
// what is dropped do not enter.
ModelCount count_model(const ModelConfig& model, const MoeConfig& moe, std::int64_t seq_len);

}  // namespace switchyard
