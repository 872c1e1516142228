#include "train/state_plan.h"

#include <algorithm>
#include <map>

#include "model/count.h"
#include "model/placement.h"
#include "tensor/block_size.h"
#include "tensor/kernels.h"

namespace switchyard {
namespace {

std::int64_t block(std::int64_t bytes) {
  return static_cast<std::int64_t>(block_size(static_cast<std::size_t>(bytes)));
}

// Bytes of what products read beside the value, which has `value_size` bytes an element.
std::int64_t copies(const HeldParameter& p, std::int64_t row_size, std::int64_t value_size, DeviceType device) {
  if (!p.multiplies || row_size == 4) return 0;
  if (device == DeviceType::cuda) return value_size == row_size ? 0 : block(row_size * p.shape.numel());
  const PackedSize size = kernels(Device{}).packed_size(p.shape, DType::bf16);
  return block(size.forward) + block(size.backward);
}

// The ranks that parameters of this kind are cut over.
int cuts(Replicas replicas, const ParallelConfig& p) {
  return replicas == Replicas::expert_data ? p.expert_tensor : replicas == Replicas::tokens ? 1 : p.tensor;
}

std::vector<PlannedMatrices> planned_matrices(const std::vector<HeldParameter>& held) {
  std::vector<PlannedMatrices> kinds;
  for (const HeldParameter& p : held) {
    auto kind = std::ranges::find(kinds, p.replicas, &PlannedMatrices::replicas);
    if (kind == kinds.end()) kind = kinds.insert(kind, {p.replicas, 0, 0});
    const std::int64_t count = p.matrices.rank() == 3 ? p.matrices[0] : 1;
    kind->numbers += count * (p.matrices[-1] + (p.matrices.rank() > 1 ? p.matrices[-2] : 0));
    kind->matrices += count;
  }
  return kinds;
}

}  // namespace

int holders(Replicas replicas, const ParallelConfig& p) {
  switch (replicas) {
    case Replicas::data: return p.data;
    case Replicas::tokens: return p.data * p.tensor;
    case Replicas::expert_data: return p.data * p.tensor / (p.expert * p.expert_tensor);
    case Replicas::ends: return p.pipeline > 1 ? 2 * p.data : 1;
    case Replicas::none: break;
  }
  return 1;
}

StatePlan plan_state(const Config& c, const Stage& stage, int tensor_rank, const Assumptions& assumptions) {
  const std::int64_t row_size = c.run.precision == Precision::fp32 ? 4 : 2;
  const auto size_of_value = [&](Reads reads) { return reads == Reads::rows ? row_size : 4; };
  const std::vector<HeldParameter> held = held_parameters(c.model, c.moe, c.parallel, stage, tensor_rank);
  std::vector<BucketItem> items;
  for (const HeldParameter& p : held)
    items.push_back({p.shape.numel(), p.replicas, p.reads, holders(p.replicas, c.parallel)});

  const std::int64_t moments = moments_each(c.optim);
  StatePlan plan;
  std::map<std::pair<Replicas, Reads>, std::int64_t> waiting;  // gradients whose bucket is not full
  std::int64_t packed = 0, values = 0;
  for (const std::vector<Bucket::Place>& places : fill_buckets(items, kBucketBytes)) {
    const BucketItem& first = items[places.front().parameter];
    const std::int64_t elements = places.back().end, share = bucket_share(elements, first.ranks),
                       size = size_of_value(first.reads);
    const bool is_shared_out = c.parallel.shard_optimizer && first.ranks > 1;
    std::int64_t& kind = waiting[{first.replicas, first.reads}];
    kind = std::max(kind, 4 * elements);
    if (first.ranks > 1) {
      plan.buckets.push_back({first.replicas, first.ranks, elements, share, size});
      if (places.size() > 1 || is_shared_out) packed = std::max(packed, block(4 * elements));
    }
    if (is_shared_out) {
      plan.parameters += block(size * first.ranks * share) + (size < 4 ? block(4 * share) : 0);
      plan.optimizer += moments * block(4 * share);
      plan.own += share;
      values = std::max(values, block(size * share));
    }
    for (const Bucket::Place& place : places) {
      const HeldParameter& p = held[place.parameter];
      plan.parameters += copies(p, row_size, is_shared_out ? size : 4, assumptions.device);
      if (is_shared_out) continue;
      plan.parameters += block(4 * p.shape.numel());
      plan.optimizer += moments * block(4 * p.shape.numel());
      plan.own += p.shape.numel();
    }
  }

  const std::vector<bool> is_moe = moe_blocks(c.moe, c.model.n_layers);
  plan.is_moe.assign(is_moe.begin() + stage.begin, is_moe.begin() + stage.end);
  plan.moe_blocks = std::ranges::count(plan.is_moe, true);
  plan.all_moe = std::ranges::count(is_moe, true);
  plan.block_gradients.resize(static_cast<std::size_t>(stage.blocks()));
  for (const HeldParameter& p : held) {
    const std::int64_t bytes = block(4 * p.shape.numel());
    plan.held += p.shape.numel();
    plan.gradients += bytes;
    plan.largest_gradient = std::max(plan.largest_gradient, bytes);
    if (stage.begin <= p.block && p.block < stage.end)
      plan.block_gradients[static_cast<std::size_t>(p.block - stage.begin)] += bytes;
    else if (stage.end == c.model.n_layers && (p.block >= stage.end || c.model.tied_embeddings))
      plan.head_gradient += bytes;
    if (p.block < 0) plan.table_gradient = bytes;
  }
  plan.leaving_gradients = 4 * plan.own;
  for (const auto& [kind, bytes] : waiting) plan.leaving_gradients += bytes;
  plan.leaving_gradients = std::min(plan.leaving_gradients, plan.gradients + 4 * plan.own);

  const bool is_beside = assumptions.device == DeviceType::cuda;
  const bool travels = !plan.buckets.empty();
  plan.communication =
      std::max(values, travels ? (is_beside ? 2 * packed : packed + block(std::min(kSummedPiece, packed))) : 0);
  const std::int64_t world = std::int64_t{c.parallel.pipeline} * c.parallel.data * c.parallel.tensor;
  std::int64_t written = (4 + 4 * moments) * count_model(c.model, c.moe, c.train.seq_len).parameters / world;
  if (c.optim.kind == OptimKind::adafactor) {
    plan.matrices = planned_matrices(held);
    std::int64_t numbers = 0, matrices = 0;
    for (const PlannedMatrices& kind : plan.matrices) {
      numbers += kind.numbers;
      matrices += kind.matrices;
      written += 4 * kind.numbers / (holders(kind.replicas, c.parallel) * cuts(kind.replicas, c.parallel));
    }
    plan.optimizer += 2 * block(4 * numbers) + block(8 * matrices);
  }
  if (c.checkpoint.async) plan.checkpoint = written;
  return plan;
}

}  // namespace switchyard
