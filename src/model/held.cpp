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
  const auto ones = [&](std::int64_t width) { held.push_back({.block = block, .shape = {width}}); };
  const auto part = [&](Shape shape) {
    held.push_back(
        {.block = block, .shape = shape, .replicas = Replicas::data, .reads = Reads::rows, .multiplies = true});
  };
  const auto experts = [&](Shape shape) {
    held.push_back(
        {.block = block, .shape = shape, .replicas = Replicas::expert_data, .reads = Reads::rows, .multiplies = true});
  };
  const std::int64_t words = m.vocab_size * (tensor_rank + 1) / tp - m.vocab_size * tensor_rank / tp;

  const bool is_first = stage.begin == 0, is_last = stage.end == m.n_layers;
  if (is_first || (is_last && m.tied_embeddings))
    held.push_back({.block = block,
                    .shape = {words, d},
                    .replicas = m.tied_embeddings && is_first != is_last ? Replicas::ends : Replicas::data,
                    .reads = Reads::rows,
                    .multiplies = m.tied_embeddings && is_last});
  const std::vector<bool> is_moe = moe_blocks(moe, m.n_layers);
  for (block = stage.begin; block < stage.end; ++block) {
    ones(d);
    part({(q + 2 * kv) / tp, d});
    if (m.qk_norm) {
      ones(m.head_dim);
      ones(m.head_dim);
    }
    if (m.positions == Positions::relative_bias)
      held.push_back({.block = block, .shape = {m.n_heads / tp, m.relative_buckets}, .replicas = Replicas::data});
    part({d, q / tp});
    ones(d);
    if (is_moe[static_cast<std::size_t>(block)]) {
      if (moe.router.scores != Scoring::hash) held.push_back({.block = block, .shape = {moe.experts, d}});
      if (moe.router.noise) held.push_back({.block = block, .shape = {moe.experts, d}});
      const std::int64_t local = moe.experts / parallel.expert;
      const Activation activation = moe.activation.value();
      experts({local, up_projection(activation, moe.d_ff).rows / parts, d});
      experts({local, d, moe.d_ff / parts});
      if (const std::int64_t shared = moe.shared_experts * moe.d_ff / tp; shared > 0) {
        part({up_projection(activation, shared).rows, d});
        part({d, shared});
      }
    } else {
      part({up_projection(m.activation, m.d_ff).rows / tp, d});
      part({d, m.d_ff / tp});
    }
  }
  if (!is_last) return held;
  block = m.n_layers;
  ones(d);
  if (!m.tied_embeddings) part({words, d});
  return held;
}

}  // namespace switchyard
