#include "model/placement.h"

#include <algorithm>

namespace switchyard {

std::vector<bool> moe_blocks(const MoeConfig& moe, std::int64_t n_layers) {
  std::vector<bool> blocks(static_cast<std::size_t>(n_layers), false);
  if (moe.experts == 0) return blocks;
  for (std::int64_t i = 0; i < n_layers; ++i)
    blocks[static_cast<std::size_t>(i)] = moe.layers.empty() ? i >= moe.first_dense && (i + 1) % moe.every == 0
                                                             : std::ranges::find(moe.layers, i) != moe.layers.end();
  return blocks;
}

ModelConfig resolved(ModelConfig m) {
  if (m.n_kv_heads == 0) m.n_kv_heads = m.n_heads;
  if (m.head_dim == 0) m.head_dim = m.d_model / m.n_heads;
  if (m.d_ff == 0) m.d_ff = is_gated(m.activation) ? ((m.d_model * 8 + 2) / 3 + 63) / 64 * 64 : 4 * m.d_model;
  return m;
}

MoeConfig resolved(MoeConfig moe, const ModelConfig& model, std::int64_t seq_len) {
  if (moe.d_ff == 0) moe.d_ff = model.d_ff;
  if (!moe.activation) moe.activation = model.activation;
  if (moe.router.top_k == 0) moe.router.top_k = moe.experts;
  if (moe.router.groups_met == 0) moe.router.groups_met = moe.router.expert_groups;
  if (moe.router.group_size == 0) moe.router.group_size = seq_len;
  return moe;
}

}  // namespace switchyard
