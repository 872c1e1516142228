#include "model/count.h"

#include "model/placement.h"

namespace switchyard {

ModelCount count_model(const ModelConfig& m, const MoeConfig& moe, std::int64_t seq_len) {
  const std::int64_t d = m.d_model, q = m.n_heads * m.head_dim, kv = m.n_kv_heads * m.head_dim;
  const std::int64_t matrices = is_gated(m.activation) ? 3 : 2;
  const std::int64_t attention = (q + 2 * kv) * d + q * d;
  const std::int64_t norms = 2 * d + (m.qk_norm ? 2 * m.head_dim : 0);
  const std::int64_t table = m.vocab_size * d;

  ModelCount count;
  std::int64_t products = table, all_norms = d;  // active weights of products; the final norm
  count.parameters = m.tied_embeddings ? table : 2 * table;
  for (const bool is_moe : moe_blocks(moe, m.n_layers)) {
    const std::int64_t dense = matrices * d * m.d_ff, expert = matrices * d * moe.d_ff, router = moe.experts * d;
    products += attention + (is_moe ? moe.top_k * expert + router : dense);
    count.parameters += attention + norms + (is_moe ? moe.experts * expert + router : dense);
    if (is_moe) count.expert_parameters += moe.experts * expert;
    all_norms += norms;
  }
  count.parameters += d;
  count.active = products + all_norms;
  count.flops_per_token = 6.0 * static_cast<double>(products) +
                          6.0 * static_cast<double>(m.n_layers) * static_cast<double>(seq_len) * static_cast<double>(q);
  return count;
}

}  // namespace switchyard
