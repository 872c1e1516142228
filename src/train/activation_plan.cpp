#include "train/activation_plan.h"

#include <algorithm>

#include "layers/feed_forward.h"
#include "tensor/block_size.h"

namespace switchyard {
namespace {

// Bytes of tensors, each in a block of the allocator.
class Tensors {
 public:
  explicit Tensors(std::int64_t row_size) : row_size_(row_size) {}
  // Of rows in the type of activations.
  Tensors& rows(std::int64_t count, std::int64_t width, std::int64_t times = 1) {
    return bytes(row_size_ * count * width, times);
  }
  Tensors& floats(std::int64_t count, std::int64_t width = 1, std::int64_t times = 1) {
    return bytes(4 * count * width, times);
  }
  operator std::int64_t() const { return sum_; }

 private:
  Tensors& bytes(std::int64_t n, std::int64_t times) {
    if (n > 0) sum_ += times * static_cast<std::int64_t>(block_size(static_cast<std::size_t>(n)));
    return *this;
  }
  std::int64_t row_size_, sum_ = 0;
};

struct Widths {
  std::int64_t d, tp, row_size;

  explicit Widths(const Config& c)
      : d(c.model.d_model), tp(c.parallel.tensor), row_size(c.run.precision == Precision::fp32 ? 4 : 2) {}
  Tensors tensors() const { return Tensors(row_size); }
};

// Projections of the normed rows, as they are, and gathered, normed or rotated; attention of them with its
// log-sum-exps; and back.
std::int64_t attention(const Config& c, const Widths& w, const PlannedRows& rows) {
  const ModelConfig& m = c.model;
  const std::int64_t q = m.n_heads * m.head_dim / w.tp, kv = m.n_kv_heads * m.head_dim / w.tp, heads = m.n_heads / w.tp,
                     keys = std::max<std::int64_t>(1, m.n_kv_heads / w.tp);
  const std::int64_t made_of_them = (m.n_kv_heads < w.tp) + (m.qk_norm || m.positions == Positions::rope);
  Tensors t = w.tensors();
  t.rows(rows.all, q + 2 * kv).rows(rows.all, q + 2 * keys * m.head_dim, made_of_them).rows(rows.all, q);
  t.floats(rows.all, heads).floats(m.qk_norm ? rows.all * (heads + keys) : 0);
  if (w.tp > 1) t.rows(rows.all, w.d, 2);  // gathered, and the parts of the sum
  return t;
}

BlockActivations dense_block(const Config& c, const Widths& w, const PlannedRows& rows) {
  BlockActivations b;
  const std::int64_t f = c.model.d_ff / w.tp, up = up_projection(c.model.activation, f).rows;
  b.ffn = w.tensors().rows(rows.all, up).rows(rows.all, f).rows(w.tp > 1 ? rows.all : 0, w.d, 2);
  b.passing = w.tensors().rows(rows.all, up).rows(rows.all, f);
  return b;
}

// Probabilities and choices; rows in the order of experts, as they leave, arrive and lie in the experts' order; hidden
// rows; and the way back.
BlockActivations moe_block(const Config& c, const Widths& w, const PlannedRows& rows) {
  const std::int64_t experts = c.moe.experts,
                     k = c.moe.router.choice == Choosing::experts ? experts : c.moe.router.top_k,
                     parts = c.parallel.expert_tensor, f = c.moe.d_ff / parts,
                     copied = parts > 1 ? rows.sent * parts : 0;
  const auto up = [&](std::int64_t width) { return up_projection(c.moe.activation.value(), width).rows; };
  const bool permutes = c.parallel.expert > 1 && experts / c.parallel.expert > 1;
  const std::int64_t permuted = permutes || parts > 1 ? rows.received : 0;
  BlockActivations b;
  Tensors back = w.tensors();
  back.rows(rows.received, w.d).rows(permuted, w.d).rows(parts > 1 ? copied : rows.sent, w.d);
  back.rows(parts > 1 ? rows.sent : 0, w.d);
  Tensors t = w.tensors();
  t.floats(rows.own, experts, 2).floats(rows.own, k, rows.cuts_groups ? 2 : 3).floats(rows.sent).floats(rows.own);
  if (rows.cuts_groups) t.floats(rows.all, k, 2);
  t.rows(rows.sent, w.d).rows(copied, w.d).floats(copied, 1, 2).rows(rows.received, w.d).rows(permuted, w.d);
  t.rows(rows.received, up(f)).rows(rows.received, f, c.moe.expert_dropout > 0 ? 2 : 1);
  if (const std::int64_t shared = c.moe.shared_experts * c.moe.d_ff / w.tp; shared > 0)
    t.rows(rows.all, up(shared)).rows(rows.all, shared).rows(w.tp > 1 ? rows.all : 0, w.d, 2).rows(rows.own, w.d, 2);
  b.ffn = t + back;
  b.passing = w.tensors().rows(rows.received, up(f)).rows(rows.received, f).rows(rows.own, w.d) - back;
  return b;
}

std::int64_t stream(const Widths& w, const PlannedRows& rows) {
  // twice a sum, its norm with a number each row, and what the piece behind it gives
  return w.tensors().rows(rows.own, w.d, 6).floats(rows.own, 1, 2);
}

// The final norm, the gradient of its rows, and the logits of a chunk (autograd/head.cpp) with their gradient.
std::int64_t head(const Config& c, const Widths& w, const PlannedRows& rows) {
  constexpr std::int64_t kLogits = std::int64_t{4} << 20, kLeastRows = 256;
  const std::int64_t words = (c.model.vocab_size + w.tp - 1) / w.tp,
                     chunk = std::min(rows.all, std::max(kLeastRows, kLogits / words));
  Tensors t = w.tensors();
  t.rows(rows.own, w.d, 2).rows(rows.all, w.d, w.tp > 1 ? 2 : 1).floats(chunk, words).rows(chunk, words);
  return t.floats(rows.own).floats(rows.all);
}

}  // namespace

std::int64_t ActivationPlan::kept(bool is_moe) const {
  const BlockActivations& b = of(is_moe);
  switch (recompute) {
    case Recompute::none: return b.all();
    case Recompute::block: return row;
    case Recompute::attention: return b.stream + b.ffn;
    case Recompute::ffn: return b.stream + b.attention;
  }
  return b.all();
}

std::int64_t ActivationPlan::more(bool is_moe) const {
  const BlockActivations& b = of(is_moe);
  // Attention runs again when the feed-forward layer is gone.
  if (recompute == Recompute::attention) return std::max(b.passing, b.attention - b.ffn);
  return b.all() - kept(is_moe) + b.passing;
}

ActivationPlan plan_activations(const Config& c, const Stage& stage, const Assumptions& assumptions) {
  const PlannedRows rows = planned_rows(c, assumptions);
  const Widths w(c);
  ActivationPlan plan{.dense = dense_block(c, w, rows), .recompute = c.train.recompute};
  if (c.moe.experts > 0) plan.moe = moe_block(c, w, rows);
  for (BlockActivations* b : {&plan.dense, &plan.moe}) {
    b->stream = stream(w, rows);
    b->attention = attention(c, w, rows);
  }
  plan.row = w.tensors().rows(rows.own, w.d);
  const bool is_first = stage.begin == 0, is_last = stage.end == c.model.n_layers;
  plan.ends = w.tensors().floats(rows.all, 1, 2);                          // words and targets
  if (is_first && w.tp > 1) plan.ends += w.tensors().rows(rows.all, w.d);  // parts of the sum of embeddings
  if (!is_last) plan.ends += plan.row;                                     // what the next stage gets
  if (is_last) plan.head = head(c, w, rows);
  return plan;
}

}  // namespace switchyard
