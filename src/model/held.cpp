#include "model/held.h"

#include "layers/feed_forward.h"
#include "model/placement.h"

namespace switchyard {

std::vector<HeldParameter> held_parameters(const ModelConfig& m, const MoeConfig& moe, const ParallelConfig& parallel,
                                           const Stage& stage, int tensor_rank) {
  const std::int64_t d = m.d_model, q = m.n_heads * m.head_dim, kv = m.n_kv_heads * m.head_dim, tp = parallel.tensor,
                     parts = parallel.expert_tensor;
  std::vector<HeldParameter> held;
  std::int64_t block = -1;
  const auto whole = [&](Shape shape) { held.push_back({.block = block, .shape = shape, .matrices = shape}); };
  const auto cut = [&](Replicas replicas, Shape matrices, int axis, std::int64_t ranks) {
    held.push_back({.block = block,
                    .shape = matrices.with(axis, matrices[axis] / ranks),
                    .replicas = replicas,
                    .reads = Reads::rows,
                    .multiplies = true,
                    .matrices = matrices});
  };
  const auto rows_cut = [&](std::int64_t rows, std::int64_t columns) { cut(Replicas::data, {rows, columns}, 0, tp); };
  const auto columns_cut = [&](std::int64_t rows, std::int64_t columns) {
    cut(Replicas::data, {rows, columns}, 1, tp);
  };
  const std::int64_t words = m.vocab_size * (tensor_rank + 1) / tp - m.vocab_size * tensor_rank / tp;
  const auto table = [&](Replicas replicas, bool multiplies) {
    held.push_back({.block = block,
                    .shape = {words, d},
                    .replicas = replicas,
                    .reads = Reads::rows,
                    .multiplies = multiplies,
                    .matrices = {m.vocab_size, d}});
  };

  const bool is_first = stage.begin == 0, is_last = stage.end == m.n_layers;
  if (is_first || (is_last && m.tied_embeddings))
    table(m.tied_embeddings && is_first != is_last ? Replicas::ends : Replicas::data, m.tied_embeddings && is_last);
  const std::vector<bool> is_moe = moe_blocks(moe, m.n_layers);
  for (block = stage.begin; block < stage.end; ++block) {
    whole({d});
    rows_cut(q + 2 * kv, d);
    if (m.qk_norm) {
      whole({m.head_dim});
      whole({m.head_dim});
    }
    if (m.positions == Positions::relative_bias)
      held.push_back({.block = block,
                      .shape = {m.n_heads / tp, m.relative_buckets},
                      .replicas = Replicas::data,
                      .matrices = {m.n_heads, m.relative_buckets}});
    columns_cut(d, q);
    whole({d});
    if (is_moe[static_cast<std::size_t>(block)]) {
      if (moe.router.scores != Scoring::hash) whole({moe.experts, d});
      if (moe.router.noise) whole({moe.experts, d});
      const std::int64_t local = moe.experts / parallel.expert;
      const Activation activation = moe.activation.value();
      cut(Replicas::expert_data, {local, up_projection(activation, moe.d_ff).rows, d}, 1, parts);
      cut(Replicas::expert_data, {local, d, moe.d_ff}, 2, parts);
      if (const std::int64_t shared = moe.shared_experts * moe.d_ff; shared > 0) {
        rows_cut(up_projection(activation, shared).rows, d);
        columns_cut(d, shared);
      }
    } else {
      rows_cut(up_projection(m.activation, m.d_ff).rows, d);
      columns_cut(d, m.d_ff);
    }
  }
  if (!is_last) return held;
  block = m.n_layers;
  whole({d});
  if (!m.tied_embeddings) table(Replicas::data, true);
  return held;
}

}  // namespace switchyard
