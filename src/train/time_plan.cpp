#include "train/time_plan.h"

#include <algorithm>
#include <bit>

#include "layers/feed_forward.h"

namespace switchyard {
namespace {

// Attention's small products reach less than large ones; its backward pass makes five products of forward's two.
constexpr double kAttentionShare = 0.5, kAttentionBackward = 2.5;

struct Seconds {
  double products = 0, passes = 0;

  double all() const { return products + passes; }
  Seconds operator*(double factor) const { return {products * factor, passes * factor}; }
  Seconds operator+(const Seconds& other) const { return {products + other.products, passes + other.passes}; }
};
// One piece of a block, forward and backward, of one micro-batch.
struct Piece {
  Seconds forward, backward;
};

// Bytes that travel for a parameter: the norm reads its gradient; AdamW reads that again, reads and writes the value
// and two moments, and writes what products read; Adafactor reads a gradient three times and a value twice.
double update_bytes(const OptimConfig& optim) {
  return 4 + (optim.kind == OptimKind::adamw ? 14 : 26) + 8 * moments_each(optim);
}

double steps_of(std::int64_t ranks) { return std::bit_width(static_cast<std::uint64_t>(ranks - 1)); }

class Rates {
 public:
  Rates(const Config& c, const Hardware& h)
      : row_size_(c.run.precision == Precision::fp32 ? 4 : 2),
        product_(1e12 * (c.run.precision == Precision::fp32 ? h.matmul_fp32 : h.matmul)),
        product_fp32_(1e12 * h.matmul_fp32),
        memory_(1e9 * h.memory_bandwidth) {}

  // y = x w^T of so many rows with `copies` weights (out, in) of which each row meets one, and its two gradients.
  Piece product(std::int64_t rows, std::int64_t in, std::int64_t out, std::int64_t copies = 1) const {
    const double r = double(rows), i = double(in), o = double(out), weights = double(copies) * i * o;
    const double flops = 2 * r * i * o / product_, moved = double(row_size_) * (r * (i + o) + weights) / memory_,
                 gradient = (double(row_size_) * r * (i + o) + 4 * weights) / memory_;
    return {{.products = std::max(flops, moved)}, {.products = std::max(flops, moved) + std::max(flops, gradient)}};
  }
  Piece router(std::int64_t rows, std::int64_t d, std::int64_t experts) const {
    const double flops = 2 * double(rows) * double(d) * double(experts) / product_fp32_;
    return {{.products = flops, .passes = floats(rows, 2 * d + 6 * experts)},
            {.products = 2 * flops, .passes = floats(rows, 2 * d + 8 * experts)}};
  }
  Piece attention(double flops) const {
    const double seconds = flops / (kAttentionShare * product_);
    return {{.products = seconds}, {.products = kAttentionBackward * seconds}};
  }
  // Passes that read or write so many elements of each row, forward and backward.
  Piece pass(std::int64_t rows, std::int64_t forward, std::int64_t backward) const {
    const double row = double(row_size_) * double(rows) / memory_;
    return {{.passes = row * double(forward)}, {.passes = row * double(backward)}};
  }
  double floats(std::int64_t rows, std::int64_t width) const { return 4 * double(rows) * double(width) / memory_; }
  double bytes(double n) const { return n / memory_; }

 private:
  std::int64_t row_size_;
  double product_, product_fp32_, memory_;
};

Piece operator+(const Piece& a, const Piece& b) { return {a.forward + b.forward, a.backward + b.backward}; }

Piece attention(const Config& c, const PlannedRows& rows, const Rates& rates) {
  const ModelConfig& m = c.model;
  const std::int64_t tp = c.parallel.tensor, d = m.d_model, q = m.n_heads * m.head_dim / tp,
                     width = q + 2 * m.n_kv_heads * m.head_dim / tp,
                     turned = m.qk_norm || m.positions == Positions::rope ? width : 0;
  // Causal attention does half of the two products of a sequence with itself.
  return rates.product(rows.all, d, width) + rates.product(rows.all, q, d) +
         rates.attention(2 * double(rows.all) * double(c.train.seq_len) * double(q)) +
         rates.pass(rows.all, 2 * turned, 3 * turned);
}

// Rows through a feed-forward layer, d_ff of whose columns are here; of several layers each row meets one.
Piece feed_forward(const Config& c, Activation activation, std::int64_t d_ff, std::int64_t rows, const Rates& rates,
                   std::int64_t layers = 1) {
  const std::int64_t d = c.model.d_model, up = up_projection(activation, d_ff).rows;
  return rates.product(rows, d, up, layers) + rates.product(rows, d_ff, d, layers) +
         rates.pass(rows, up + d_ff, 2 * up + d_ff);
}

Piece experts(const Config& c, const PlannedRows& rows, const Rates& rates) {
  const std::int64_t d = c.model.d_model, f = c.moe.d_ff / c.parallel.expert_tensor,
                     shared = c.moe.shared_experts * c.moe.d_ff / c.parallel.tensor;
  const Activation activation = c.moe.activation.value();
  // Rows are gathered by expert where they leave, and again where they arrive; so on the way back.
  Piece piece = rates.router(rows.own, d, c.moe.experts) +
                feed_forward(c, activation, f, rows.received, rates, c.moe.experts / c.parallel.expert) +
                rates.pass(rows.sent, 4 * d, 4 * d) + rates.pass(rows.received, 4 * d, 4 * d);
  if (shared > 0) piece = piece + feed_forward(c, activation, shared, rows.all, rates);
  return piece;
}

Piece head(const Config& c, const PlannedRows& rows, const Rates& rates) {
  const std::int64_t words = c.model.vocab_size / c.parallel.tensor;
  Piece piece = rates.product(rows.all, c.model.d_model, words);
  piece.forward.passes += rates.floats(rows.all, 3 * words);  // logits written, read, and their gradient written
  return piece;
}

// What of `seconds` is not hidden behind so much computing.
double exposed(double seconds, double behind, const Hardware& h) {
  return h.type == DeviceType::cuda ? std::max(0.0, seconds - behind) : seconds;
}

}  // namespace

double collective_seconds(const PlannedTraffic& t, const GroupShape& shape, const Hardware& h) {
  const std::int64_t in_node = shape.stride >= h.node_devices
                                   ? 1
                                   : std::min(shape.size, h.node_devices / std::max<std::int64_t>(shape.stride, 1)),
                     nodes = (shape.size + in_node - 1) / in_node;
  const double calls = double(t.calls), bytes = double(t.bytes), node_alpha = 1e-6 * h.node_latency,
               network_alpha = 1e-6 * h.network_latency, node_beta = 1e-9 / h.node_bandwidth,
               network_beta = 1e-9 / h.network_bandwidth;
  if (t.collective == Collective::all_to_all) {
    const double inside = double(in_node - 1), outside = double(shape.size - in_node), others = inside + outside;
    return calls * (inside * node_alpha + outside * network_alpha) +
           std::max(bytes * inside / others * node_beta, bytes * outside / others * network_beta);
  }
  const double rounds = t.collective == Collective::all_reduce ? 2 : 1;
  return calls * rounds * (steps_of(in_node) * node_alpha + steps_of(nodes) * network_alpha) +
         std::max(in_node > 1 ? bytes * node_beta : 0, nodes > 1 ? bytes / double(in_node) * network_beta : 0);
}

TimePlan plan_time(const Config& c, const Stage& blocks, const StatePlan& state,
                   const std::vector<PlannedTraffic>& traffic, int stage, const Hardware& h,
                   const Assumptions& assumptions) {
  const PlannedRows rows = planned_rows(c, assumptions);
  const Rates rates(c, h);
  const double moe = double(state.moe_blocks), all = double(blocks.blocks()),
               parts = double(c.train.global_batch / (c.train.micro_batch * c.parallel.data));
  const Recompute again = c.train.recompute;

  const Piece mixing = attention(c, rows, rates),
              plain = feed_forward(c, c.model.activation, c.model.d_ff / c.parallel.tensor, rows.all, rates),
              routed = c.moe.experts > 0 ? experts(c, rows, rates) : Piece{},
              stream = rates.pass(rows.own, 2 * 4 * c.model.d_model, 2 * 5 * c.model.d_model);
  Seconds forward = mixing.forward * all + plain.forward * (all - moe) + routed.forward * moe + stream.forward * all;
  Seconds backward =
      mixing.backward * all + plain.backward * (all - moe) + routed.backward * moe + stream.backward * all;
  if (blocks.end == c.model.n_layers) {
    const Piece loss = head(c, rows, rates);
    forward = forward + loss.forward;
    backward = backward + loss.backward;
  }
  // Gradients of a step's parts add up: two are read and one written.
  if (parts > 1) backward.passes += rates.bytes(12 * double(state.held));

  TimePlan plan;
  if (again == Recompute::attention || again == Recompute::block) plan.again += parts * (mixing.forward * all).all();
  if (again == Recompute::ffn || again == Recompute::block)
    plan.again += parts * (plain.forward * (all - moe) + routed.forward * moe).all();
  if (again == Recompute::block) plan.again += parts * (stream.forward * all).all();
  plan.products = parts * (forward.products + backward.products);
  plan.passes = parts * (forward.passes + backward.passes);

  double gradients = 0, values = 0;
  for (const PlannedTraffic& t : traffic) {
    const double seconds = collective_seconds(t, shape_of(t.group, c.parallel, stage), h);
    if (t.phase == Phase::gradients)
      gradients += seconds;
    else if (t.phase == Phase::values)
      values += seconds;
    else if (t.phase == Phase::update)
      plan.update += seconds;
    else if (t.group == Group::experts)
      plan.exchange += seconds;
    else if (t.group == Group::previous || t.group == Group::next)
      plan.neighbours += seconds;
    else
      plan.tensor += seconds;
  }
  // In halves one part of the rows travels while experts compute on the other.
  if (rows.parts > 1 && h.type == DeviceType::cuda)
    plan.exchange -= std::min(plan.exchange / 2, parts * moe * (routed.forward + routed.backward).all());
  plan.gradients = exposed(gradients, backward.all() + plan.again / parts, h);
  plan.update += rates.bytes(update_bytes(c.optim) * double(state.own)) + exposed(values, forward.all(), h);
  const double busy = plan.products + plan.passes + plan.again + plan.tensor + plan.exchange + plan.neighbours;
  plan.waiting = busy * double(c.parallel.pipeline - 1) / parts;  // (p - 1) / (m + p - 1) of the whole
  plan.step = busy + plan.waiting + plan.gradients + plan.update;
  return plan;
}

}  // namespace switchyard
