#include "train/traffic_plan.h"

#include <algorithm>
#include <iterator>

#include "dist/ordered_reduce.h"

namespace switchyard {
namespace {

Group group_of(Replicas replicas) {
  switch (replicas) {
    case Replicas::data: return Group::data;
    case Replicas::tokens: return Group::tokens;
    case Replicas::expert_data: return Group::expert_data;
    case Replicas::ends: return Group::ends;
    case Replicas::none: break;
  }
  throw Error("traffic of what only one rank holds");
}

// A rank's place in its group; of `ends`, the last stage's ranks come behind the first's.
int place_in(Group group, const ParallelConfig& p, int rank) {
  const int stage_ranks = p.data * p.tensor, stage = rank / stage_ranks, in_stage = rank % stage_ranks;
  const GroupShape shape = shape_of(group, p, stage);
  if (group == Group::ends) return in_stage / p.tensor + (stage > 0 ? p.data : 0);
  return static_cast<int>((group == Group::world ? rank : in_stage) / shape.stride % shape.size);
}

// Adds up the calls of a rank's step.
class Sent {
 public:
  Sent(const Config& c, int rank) : parallel_(c.parallel), rank_(rank) {}

  // `bytes` of this rank's own go to each of the others, or come from each of them, `times` over.
  void rows(Group group, Collective collective, Phase phase, std::int64_t times, std::int64_t bytes) {
    add(group, collective, phase, times, times * bytes * (size(group) - 1));
  }
  void all_reduce(Group group, Phase phase, std::int64_t times, std::int64_t elements) {
    const auto ranks = static_cast<int>(size(group));
    add(group, Collective::all_reduce, phase, times,
        times * 4 * all_reduce_elements(elements, place_in(group, parallel_, rank_), ranks));
  }
  void add(Group group, Collective collective, Phase phase, std::int64_t calls, std::int64_t bytes) {
    if (size(group) == 1 || calls == 0) return;
    const auto same = [&](const PlannedTraffic& t) {
      return t.group == group && t.collective == collective && t.phase == phase;
    };
    if (const auto found = std::ranges::find_if(sent_, same); found != sent_.end()) {
      found->calls += calls;
      found->bytes += bytes;
    } else {
      sent_.push_back({group, collective, phase, calls, bytes});
    }
  }
  std::int64_t size(Group group) const {
    return shape_of(group, parallel_, rank_ / (parallel_.data * parallel_.tensor)).size;
  }
  std::vector<PlannedTraffic> take() && { return std::move(sent_); }

 private:
  const ParallelConfig& parallel_;
  int rank_;
  std::vector<PlannedTraffic> sent_;
};

// What routers tell each other in so many passes.
void add_routers(const Config& c, Phase phase, std::int64_t runs, const PlannedRows& rows, Sent& sent) {
  const RouterConfig& router = c.moe.router;
  const std::int64_t experts = c.moe.experts, choices = router.choice == Choosing::experts ? experts : router.top_k;
  const auto gather = [&](std::int64_t width) {
    if (rows.cuts_groups) sent.rows(Group::tensor, Collective::all_gather, phase, runs, rows.own * width * 4);
  };
  gather(choices);
  if (router.choice == Choosing::experts) gather(choices);  // and their scores
  if (router.device_capacity > 0) gather(choices);          // and their scores
  if (router.admission == Admission::priority) gather(1);
  if (router.bias) gather(choices);  // and those that scores alone would make
  if (router.scores == Scoring::hash) return;

  const std::int64_t variations = (router.importance_loss > 0) + (router.load_loss > 0);
  if (router.balance_scope == BalanceScope::group) {
    if (rows.cuts_groups)
      for (std::int64_t i = 0; i < variations; ++i)
        sent.all_reduce(Group::tensor, phase, runs, rows.all / router.group_size * experts);
    return;
  }
  const bool has_groups = router.device_loss > 0 || router.communication_loss > 0;
  for (int i = 0; i <= has_groups; ++i) sent.all_reduce(Group::tokens, phase, runs, choices * experts);
  if (has_groups) sent.all_reduce(Group::tokens, phase, runs, router.expert_groups);
  for (std::int64_t i = 0; i < variations; ++i) sent.all_reduce(Group::tokens, phase, runs, experts);
}

// What blocks send in `times` forward passes, and again in backward where that runs forward again.
void add_blocks(const Config& c, std::int64_t dense, std::int64_t moe, std::int64_t times, const PlannedRows& rows,
                Sent& sent) {
  const std::int64_t size = c.run.precision == Precision::fp32 ? 4 : 2, row = rows.own * c.model.d_model * size;
  const Recompute again = c.train.recompute;
  // An op's rows are gathered forward and summed backward, or the other way round.
  const auto tensor_piece = [&](std::int64_t pieces, bool is_again) {
    for (const Phase phase : {Phase::forward, Phase::backward}) {
      const std::int64_t passes = times * pieces * (phase == Phase::backward && is_again ? 2 : 1);
      sent.rows(Group::tensor, Collective::all_gather, phase, passes, row);
      sent.rows(Group::tensor, Collective::reduce_scatter, phase, passes, row);
    }
  };
  tensor_piece(dense + moe, again == Recompute::attention || again == Recompute::block);
  const bool ffn_again = again == Recompute::ffn || again == Recompute::block;
  tensor_piece(dense + (c.moe.shared_experts > 0 ? moe : 0), ffn_again);

  const std::int64_t experts = sent.size(Group::experts), local = c.moe.experts * c.parallel.expert_tensor / experts,
                     copied = rows.sent * c.parallel.expert_tensor,
                     each = (rows.padded > 0 ? local * rows.padded : copied / experts) * c.model.d_model * size;
  for (const Phase phase : {Phase::forward, Phase::backward}) {
    const std::int64_t runs = times * moe * (phase == Phase::forward || ffn_again ? 1 : 0);  // of the forward part
    add_routers(c, phase, runs, rows, sent);
    if (rows.padded == 0) sent.rows(Group::experts, Collective::all_to_all, phase, runs, 4 * local * rows.parts);
    if (c.moe.expert_dropout > 0)
      sent.rows(Group::experts, Collective::all_to_all, phase, runs * rows.parts,
                4 * each / (c.model.d_model * size) / rows.parts);
    const std::int64_t trips = 2 * (runs + (phase == Phase::backward ? times * moe : 0));
    sent.rows(Group::experts, Collective::all_to_all, phase, trips * rows.parts, each / rows.parts);
  }
}

// What Adafactor adds up (optim/matrix_index.h), once of rows and columns and once of matrices.
void add_matrices(const std::vector<PlannedMatrices>& matrices, bool is_shared_out, Sent& sent) {
  const auto sum = [&](Group group, std::initializer_list<Replicas> kinds) {
    std::int64_t numbers = 0, count = 0;
    for (const PlannedMatrices& kind : matrices)
      if (std::ranges::find(kinds, kind.replicas) != kinds.end()) {
        numbers += kind.numbers;
        count += kind.matrices;
      }
    if (count == 0) return;
    sent.all_reduce(group, Phase::update, 1, numbers);
    sent.all_reduce(group, Phase::update, 1, 2 * count);
  };
  if (is_shared_out) {
    sum(Group::data, {Replicas::tokens, Replicas::data});
    sum(Group::ends, {Replicas::ends});
    sum(Group::expert_data, {Replicas::expert_data});
    sum(Group::tensor, {Replicas::tokens, Replicas::data, Replicas::ends});
  } else {
    sum(Group::tensor, {Replicas::data, Replicas::ends});
  }
  sum(Group::expert_tensor, {Replicas::expert_data});
}

}  // namespace

const char* name_of(Group group) {
  constexpr const char* names[kGroups] = {"world",       "data",          "tensor",   "tokens", "experts",
                                          "expert_data", "expert_tensor", "previous", "next",   "ends"};
  return names[static_cast<int>(group)];
}

GroupShape shape_of(Group group, const ParallelConfig& p, int stage) {
  const std::int64_t stage_ranks = std::int64_t{p.data} * p.tensor, set = std::int64_t{p.expert} * p.expert_tensor;
  const bool is_end = p.pipeline > 1 && (stage == 0 || stage == p.pipeline - 1);
  switch (group) {
    case Group::world: return {p.pipeline * stage_ranks, 1};
    case Group::data: return {p.data, p.tensor};
    case Group::tensor: return {p.tensor, 1};
    case Group::tokens: return {stage_ranks, 1};
    case Group::experts: return {set, 1};
    case Group::expert_data: return {stage_ranks / set, set};
    case Group::expert_tensor: return {p.expert_tensor, 1};
    case Group::previous: return {stage > 0 ? 2 : 1, stage_ranks};
    case Group::next: return {stage < p.pipeline - 1 ? 2 : 1, stage_ranks};
    case Group::ends: return {is_end ? 2 * p.data : 1, p.tensor};
  }
  return {1, 1};
}

std::vector<PlannedTraffic> plan_pass_traffic(const Config& c, int rank, const Stage& blocks, const StatePlan& state,
                                              const Assumptions& assumptions) {
  const PlannedRows rows = planned_rows(c, assumptions);
  const std::int64_t size = c.run.precision == Precision::fp32 ? 4 : 2, row = rows.own * c.model.d_model * size,
                     parts = c.train.global_batch / (c.train.micro_batch * c.parallel.data);
  Sent sent(c, rank);
  add_blocks(c, blocks.blocks() - state.moe_blocks, state.moe_blocks, parts, rows, sent);
  if (blocks.begin == 0) {
    sent.rows(Group::tensor, Collective::reduce_scatter, Phase::forward, parts, row);
    sent.rows(Group::tensor, Collective::all_gather, Phase::backward, parts, row);
  }
  if (blocks.end == c.model.n_layers) {
    sent.rows(Group::tensor, Collective::all_gather, Phase::forward, parts, row);
    sent.rows(Group::tensor, Collective::all_gather, Phase::forward, parts, rows.all * 16);
    sent.rows(Group::tensor, Collective::reduce_scatter, Phase::backward, parts, row);
  }
  sent.add(Group::next, Collective::all_to_all, Phase::forward, parts, parts * row);
  sent.add(Group::previous, Collective::all_to_all, Phase::backward, parts, parts * row);
  return std::move(sent).take();
}

std::vector<PlannedTraffic> plan_state_traffic(const Config& c, int rank, const StatePlan& state) {
  Sent sent(c, rank);
  for (const PlannedBucket& bucket : state.buckets) {
    const Group group = group_of(bucket.replicas);
    if (c.parallel.shard_optimizer) {
      sent.rows(group, Collective::reduce_scatter, Phase::gradients, 1, 4 * bucket.share);
      sent.rows(group, Collective::all_gather, Phase::values, 1, bucket.value_size * bucket.share);
    } else {
      sent.all_reduce(group, Phase::gradients, 1, bucket.elements);
    }
  }
  sent.all_reduce(Group::world, Phase::update, 1, 1);                                        // the gradient's norm
  sent.all_reduce(Group::world, Phase::update, 1, 1 + state.all_moe * (5 + c.moe.experts));  // metrics
  add_matrices(state.matrices, c.parallel.shard_optimizer, sent);
  if (c.moe.router.bias && c.moe.router.bias_rate > 0)
    sent.all_reduce(Group::tokens, Phase::update, state.moe_blocks, c.moe.experts);
  return std::move(sent).take();
}

std::vector<PlannedTraffic> plan_traffic(const Config& c, int rank, const Assumptions& assumptions) {
  const std::vector<Stage> stages = cut_into_stages(c.model, c.moe, c.train.seq_len, c.parallel.pipeline);
  const Stage& blocks = stages[static_cast<std::size_t>(rank / (c.parallel.data * c.parallel.tensor))];
  const StatePlan state = plan_state(c, blocks, rank % c.parallel.tensor, assumptions);
  std::vector<PlannedTraffic> traffic = plan_pass_traffic(c, rank, blocks, state, assumptions);
  std::ranges::move(plan_state_traffic(c, rank, state), std::back_inserter(traffic));
  return traffic;
}

}  // namespace switchyard
