#include "train/memory_plan.h"

#include <algorithm>

#include "model/count.h"
#include "model/placement.h"

namespace switchyard {
namespace {

// Widths of an up projection's rows and of what the activation makes of them, in units of d_ff.
std::int64_t up_and_hidden(Activation activation) { return is_gated(activation) ? 3 : 2; }

// Bytes that one token's rows of a block occupy until backward has passed, `size` bytes an element.
std::int64_t block_bytes(const Config& c, bool is_moe, std::int64_t size) {
  const ModelConfig& m = c.model;
  const std::int64_t d = m.d_model, q = m.n_heads * m.head_dim, width = q + 2 * m.n_kv_heads * m.head_dim;
  const std::int64_t hidden = up_and_hidden(m.activation);
  const std::int64_t norms = 4 * (2 + m.n_heads + (m.qk_norm ? m.n_heads + m.n_kv_heads : 0));
  // block input, its norm, the fused projection before and after rotation, attention's output, the sum, its norm
  const std::int64_t attention = size * (d + d + 2 * width + q + d + d) + norms;
  if (!is_moe) return attention + size * hidden * m.d_ff;
  const std::int64_t k = c.moe.top_k, experts = c.moe.experts;
  const std::int64_t router = 4 * (size == 4 ? 0 : d) + 4 * 3 * experts + 4 * 4 * k;  // input, logits, p, f32; choices
  return attention + router + size * k * (2 * d + hidden * c.moe.d_ff);               // rows in, experts, rows out
}

}  // namespace

MemoryPlan plan_memory(const Config& c, int world_size) {
  const ModelCount count = count_model(c.model, c.moe, c.train.seq_len);
  const std::int64_t ep = c.parallel.expert, size = c.run.precision == Precision::fp32 ? 4 : 2;
  const std::int64_t dense = count.parameters - count.expert_parameters;
  const std::int64_t held = dense + count.expert_parameters / ep;
  const std::int64_t tokens = c.train.micro_batch * c.train.seq_len;

  std::int64_t kept = 0, largest = 0, widest = 0;
  for (const bool is_moe : moe_blocks(c.moe, c.model.n_layers)) {
    const std::int64_t bytes = tokens * block_bytes(c, is_moe, size);
    largest = std::max(largest, bytes);
    widest = std::max(
        widest, tokens * size * up_and_hidden(c.model.activation) * (is_moe ? c.moe.top_k * c.moe.d_ff : c.model.d_ff));
    kept += c.train.recompute == Recompute::block ? tokens * size * c.model.d_model : bytes;
  }
  if (c.train.recompute == Recompute::block) kept += largest;

  MemoryPlan plan;
  const auto set = [&](Memory kind, std::int64_t bytes) { plan.bytes[static_cast<std::size_t>(kind)] = bytes; };
  const std::int64_t matrices = held - (c.model.tied_embeddings ? 0 : c.model.vocab_size * c.model.d_model);
  set(Memory::parameters, 4 * held + (size == 2 ? 4 * matrices : 0));
  set(Memory::gradients, 4 * held);
  set(Memory::optimizer, 8 * held);
  set(Memory::activations, kept + widest + 2 * tokens * size * c.model.d_model);
  set(Memory::communication, world_size > 1 ? std::min<std::int64_t>(8 << 20, 4 * held) : 0);
  return plan;
}

}  // namespace switchyard
