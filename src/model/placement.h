#pragma once

#include "model/config.h"
#include "moe/config.h"

namespace switchyard {

// Which blocks are MoE, by block. An explicit list wins; else, after the first `first_dense`, block i is MoE when
// (i + 1) is a multiple of `every` (the rule of Qwen3-MoE's decoder_sparse_step; 2 is GLaM's alternation).
std::vector<bool> moe_blocks(const MoeConfig& moe, std::int64_t n_layers);

// The same configurations with every "0 means" and "auto means" of a model filled in: head_dim, n_kv_heads, d_ff (8/3
// d_model up to a multiple of 64; 4 d_model where the activation is not gated), the experts' d_ff and activation, the
// routing group of `seq_len` tokens, and how many experts and groups of them a token may go to.
ModelConfig resolved(ModelConfig model);
MoeConfig resolved(MoeConfig moe, const ModelConfig& resolved_model, std::int64_t seq_len);

}  // namespace switchyard
