#include "model/count.h"

#include <cmath>

#include "model/placement.h"
#include "moe/room.h"

namespace switchyard {
namespace {

// Parameters of the experts that a token goes to, on average where these choose.
std::int64_t routed(const MoeConfig& moe, std::int64_t expert) {
  if (moe.router.choice == Choosing::tokens) return moe.router.top_k * expert;
  const std::int64_t group = moe.router.group_size;
  return std::llround(static_cast<double>(moe.experts * expert) * static_cast<double>(expert_capacity(moe, group)) /
                      static_cast<double>(group));
}

}  // namespace

ModelCount count_block(const ModelConfig& m, const MoeConfig& moe, bool is_moe, std::int64_t seq_len) {
  const std::int64_t d = m.d_model, q = m.n_heads * m.head_dim, kv = m.n_kv_heads * m.head_dim;
  const std::int64_t attention = (q + 2 * kv) * d + q * d, norms = 2 * d + (m.qk_norm ? 2 * m.head_dim : 0),
                     biases = m.positions == Positions::relative_bias ? m.n_heads * m.relative_buckets : 0;
  const std::int64_t gates = moe.router.scores == Scoring::hash ? 0 : moe.router.noise ? 2 : 1;
  const auto ffn = [d](Activation activation, std::int64_t d_ff) { return (is_gated(activation) ? 3 : 2) * d * d_ff; };
  const std::int64_t dense = ffn(m.activation, m.d_ff), expert = ffn(moe.activation.value(), moe.d_ff),
                     shared = moe.shared_experts * expert, router = gates * moe.experts * d;
  const std::int64_t products = attention + (is_moe ? routed(moe, expert) + shared + router : dense);
  return {.parameters = attention + norms + biases + (is_moe ? moe.experts * expert + shared + router : dense),
          .active = products + norms + biases,
          .expert_parameters = is_moe ? moe.experts * expert : 0,
          .flops_per_token = 6.0 * static_cast<double>(products + seq_len * q)};
}

ModelCount count_model(const ModelConfig& m, const MoeConfig& moe, std::int64_t seq_len) {
  const std::int64_t table = m.vocab_size * m.d_model, norm = m.d_model;
  ModelCount count{.parameters = norm + (m.tied_embeddings ? table : 2 * table),
                   .active = norm + table,
                   .flops_per_token = 6.0 * static_cast<double>(table)};
  for (const bool is_moe : moe_blocks(moe, m.n_layers)) {
    const ModelCount block = count_block(m, moe, is_moe, seq_len);
    count.parameters += block.parameters;
    count.active += block.active;
    count.expert_parameters += block.expert_parameters;
    count.flops_per_token += block.flops_per_token;
  }
  return count;
}

}  // namespace switchyard
