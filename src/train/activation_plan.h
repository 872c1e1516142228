#pragma once

#include "model/stages.h"
#include "train/planned_rows.h"

namespace switchyard {

// Bytes of activations of a block's micro-batch on a rank, as the allocator counts them: what its ops keep for backward
// (src/autograd). By piece: the residual stream with its norms, which recomputation of a piece leaves, attention, and
// the feed-forward layer.
struct BlockActivations {
  std::int64_t stream = 0, attention = 0, ffn = 0;
  // More than the block's at the worst moment of its backward pass: the gradients of hidden rows and of the stream.
  std::int64_t passing = 0;

  std::int64_t all() const { return stream + attention + ffn; }
};

struct ActivationPlan {
  BlockActivations dense{}, moe{};
  std::int64_t row = 0;   // one tensor of the stream
  std::int64_t ends = 0;  // of the stage's first and last ops, for as long as the micro-batch lives
  std::int64_t head = 0;  // while the last stage computes the loss
  Recompute recompute = Recompute::none;

  const BlockActivations& of(bool is_moe) const { return is_moe ? moe : dense; }
  // What a block keeps from forward to backward, and how much more there is at the worst moment of its backward pass.
  std::int64_t kept(bool is_moe) const;
  std::int64_t more(bool is_moe) const;
};

// The configuration is resolved.
ActivationPlan plan_activations(const Config& config, const Stage& stage, const Assumptions& assumptions);

}  // namespace switchyard
