#include "train/memory_plan.h"

#include <algorithm>

#include "model/count.h"
#include "model/placement.h"

namespace switchyard {
namespace {

// Widths of an up projection's rows and of what the activation makes of them, in units of d_ff.
std::int64_t up_and_hidden(Activation activation) { return is_gated(activation) ? 3 : 2; }

// Bytes that a block's rows of `tokens` of the tensor group occupy on a rank until backward has passed, `size` bytes an
// element: of the residual stream its part of the rows, gathered for the products, of the rest its part of the width.
struct BlockBytes {
  std::int64_t input = 0, stream = 0, attention = 0, ffn = 0;

  std::int64_t all() const { return input + stream + attention + ffn; }
  std::int64_t again(Recompute recompute) const {
    switch (recompute) {
      case Recompute::none: return 0;
      case Recompute::block: return all() - input;
      case Recompute::attention: return attention;
      case Recompute::ffn: return ffn;
    }
    return 0;
  }
};
BlockBytes block_bytes(const Config& c, bool is_moe, std::int64_t tokens, std::int64_t size) {
  const ModelConfig& m = c.model;
  const std::int64_t d = m.d_model, q = m.n_heads * m.head_dim, width = q + 2 * m.n_kv_heads * m.head_dim;
  const std::int64_t hidden = up_and_hidden(m.activation), ranks = c.parallel.tensor, own = tokens / ranks;
  const std::int64_t gathered = ranks > 1 ? tokens * size * d : 0;
  BlockBytes bytes;
  bytes.input = own * size * d;
  bytes.stream = own * (3 * size * d + 4 * 2);  // the input's norm, the sum with attention's output, its norm
  // the fused projection before and after rotation, what attention gives, log-sum-exps and norms of heads
  bytes.attention =
      own * (size * (2 * width + q) + 4 * (m.n_heads + (m.qk_norm ? m.n_heads + m.n_kv_heads : 0))) + gathered;
  if (!is_moe) {
    bytes.ffn = own * size * hidden * m.d_ff + gathered;
    return bytes;
  }
  const std::int64_t k = c.moe.top_k, experts = c.moe.experts, parts = c.parallel.expert_tensor;
  const std::int64_t router = 4 * (size == 4 ? 0 : d) + 4 * 3 * experts + 4 * 4 * k;  // input, logits, p, f32; choices
  // rows in and out of experts, on each of their parts, whose hidden rows are narrower
  bytes.ffn = own * (router + size * k * (2 * d * parts + hidden * c.moe.d_ff));
  return bytes;
}

}  // namespace

MemoryPlan plan_memory(const Config& c, int world_size) {
  const ModelCount count = count_model(c.model, c.moe, c.train.seq_len);
  const std::int64_t tp = c.parallel.tensor, ep = c.parallel.expert, etp = c.parallel.expert_tensor,
                     size = c.run.precision == Precision::fp32 ? 4 : 2;
  const std::int64_t norms =
      c.model.d_model + c.model.n_layers * (2 * c.model.d_model + (c.model.qk_norm ? 2 * c.model.head_dim : 0));
  const std::int64_t routers =
      std::ranges::count(moe_blocks(c.moe, c.model.n_layers), true) * c.moe.experts * c.model.d_model;
  const std::int64_t cut = count.parameters - count.expert_parameters - norms - routers,
                     tables = c.model.vocab_size * c.model.d_model;
  // What the rank holds of each kind, how many ranks hold the same, and the bytes that forward reads of one.
  struct Kind {
    std::int64_t parameters, holders, read;
  };
  const Kind kinds[] = {{norms + routers, world_size, 4},
                        {cut / tp, world_size / tp, size},
                        {count.expert_parameters / (ep * etp), world_size / (ep * etp), size}};
  constexpr std::int64_t kBucketBytes = 8 << 20;
  std::int64_t held = 0, values = 0, arriving = 0, states = 0;  // parameters, and bytes
  for (const auto& [parameters, holders, read] : kinds) {
    const bool is_shared_out = c.parallel.shard_optimizer && holders > 1;
    const std::int64_t own = is_shared_out ? parameters / holders : parameters;
    held += parameters;
    values += is_shared_out && read < 4 ? read * parameters + 4 * own : 4 * parameters;
    arriving += is_shared_out ? std::min(kBucketBytes, 4 * parameters) / holders : 0;
    states += 8 * own;
  }
  const std::int64_t tokens = c.train.micro_batch * c.train.seq_len, own = tokens / tp;

  std::int64_t kept = 0, largest = 0, widest = 0;
  for (const bool is_moe : moe_blocks(c.moe, c.model.n_layers)) {
    const BlockBytes bytes = block_bytes(c, is_moe, tokens, size);
    const std::int64_t again = bytes.again(c.train.recompute);
    largest = std::max(largest, again);
    widest = std::max(
        widest, own * size * up_and_hidden(c.model.activation) * (is_moe ? c.moe.top_k * c.moe.d_ff : c.model.d_ff));
    kept += bytes.all() - again;
  }
  kept += largest;  // one at a time

  MemoryPlan plan;
  const auto set = [&](Memory kind, std::int64_t bytes) { plan.bytes[static_cast<std::size_t>(kind)] = bytes; };
  const std::int64_t matrices = held - (c.model.tied_embeddings ? 0 : tables / tp);
  set(Memory::parameters, values + (size == 2 ? 4 * matrices : 0));
  set(Memory::gradients, 4 * held + arriving);
  set(Memory::optimizer, states);
  set(Memory::activations, kept + widest + 2 * own * size * c.model.d_model);
  set(Memory::checkpoint, c.checkpoint.async ? 12 * count.parameters / world_size : 0);
  set(Memory::communication, world_size > 1 ? std::min(kBucketBytes, 4 * held) : 0);
  return plan;
}

}  // namespace switchyard
