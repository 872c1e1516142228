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

// The normed rows gathered; their projections before the norm of queries and keys and after it; attention of these with
// its log-sum-exps.
std::int64_t attention(const Config& c, const Widths& w, const PlannedRows& rows) {
  const ModelConfig& m = c.model;
  const std::int64_t q = m.n_heads * m.head_dim / w.tp, heads = m.n_heads / w.tp,
                     keys = std::max<std::int64_t>(1, m.n_kv_heads / w.tp);
  Tensors t = w.tensors();
  t.rows(w.tp > 1 ? rows.all : 0, w.d).rows(rows.all, q + 2 * keys * m.head_dim, m.qk_norm ? 2 : 1).rows(rows.all, q);
  t.floats(rows.all, heads).floats(m.qk_norm ? rows.all * (heads + keys) : 0);
  return t;
}

BlockActivations dense_block(const Config& c, const Widths& w, const PlannedRows& rows) {
  BlockActivations b;
  const std::int64_t f = c.model.d_ff / w.tp, up = up_projection(c.model.activation, f).rows;
  b.ffn = w.tensors().rows(w.tp > 1 ? rows.all : 0, w.d).rows(rows.all, up).rows(rows.all, f);
  b.passing = w.tensors().rows(rows.all, up).rows(rows.own, w.d);
  return b;
}

// Probabilities and choices; the rows that arrived, in the experts' order; hidden rows; and what came back.
BlockActivations moe_block(const Config& c, const Widths& w, const PlannedRows& rows) {
  const std::int64_t experts = c.moe.experts,
                     k = c.moe.router.choice == Choosing::experts ? experts : c.moe.router.top_k,
                     parts = c.parallel.expert_tensor, f = c.moe.d_ff / parts,
                     copied = parts > 1 ? rows.sent * parts : 0;
  const auto up = [&](std::int64_t width) { return up_projection(c.moe.activation.value(), width).rows; };
  BlockActivations b;
  const std::int64_t back = w.tensors().rows(rows.sent, w.d);
  Tensors t = w.tensors();
  t.floats(rows.own, experts).floats(rows.own, k, rows.cuts_groups ? 2 : 3).floats(rows.own);
  if (rows.cuts_groups) t.floats(rows.all, k);
  t.floats(copied, 1, 2).rows(rows.received, w.d).rows(rows.received, up(f)).rows(rows.received, f);
  if (const std::int64_t shared = c.moe.shared_experts * c.moe.d_ff / w.tp; shared > 0)
    t.rows(w.tp > 1 ? rows.all : 0, w.d).rows(rows.all, up(shared)).rows(rows.all, shared);
  b.ffn = t + back;
  // Back through the second product everything is there still; through the activation, what only that product read is
  // not. Where the piece runs again, forward has the rows on their way home.
  const std::int64_t own = w.tensors().rows(rows.own, w.d),
                     second = w.tensors().rows(rows.received, f).rows(rows.received, w.d),
                     first = w.tensors().rows(rows.received, up(f)),
                     home = w.tensors().rows(rows.received, w.d).rows(parts > 1 ? copied : rows.sent, w.d);
  b.passing = std::max(std::max(first, second) + own, home) - back;
  return b;
}

// Twice a sum and its norm, with a number each row. Where the norm's rows are gathered, they themselves are kept only
// for what reads them beside that: a router, or a piece that runs again from them.
std::int64_t stream(const Config& c, bool is_moe, const Widths& w, const PlannedRows& rows) {
  const bool keeps_first = w.tp == 1 || c.train.recompute == Recompute::attention,
             keeps_second = w.tp == 1 || is_moe || c.train.recompute == Recompute::ffn;
  return w.tensors().rows(rows.own, w.d, 2 + keeps_first + keeps_second).floats(rows.own, 1, 2);
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
  for (const bool is_moe : {false, true}) {
    BlockActivations& b = is_moe ? plan.moe : plan.dense;
    b.stream = stream(c, is_moe, w, rows);
    b.attention = attention(c, w, rows);
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
