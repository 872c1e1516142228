#include "train/layout_search.h"

#include <algorithm>
#include <set>

#include "model/count.h"
#include "model/placement.h"
#include "train/config_rules.h"

namespace switchyard {
namespace {

std::vector<int> divisors(std::int64_t n) {
  std::vector<int> low, high;
  for (std::int64_t d = 1; d * d <= n; ++d) {
    if (n % d != 0) continue;
    low.push_back(static_cast<int>(d));
    if (d * d != n) high.push_back(static_cast<int>(n / d));
  }
  low.insert(low.end(), high.rbegin(), high.rend());
  return low;
}

// One stage of a layout, with all that does not depend on the micro-batch.
struct StagePlan {
  int stage;
  Stage blocks;
  StatePlan state;
  std::vector<PlannedTraffic> traffic;  // once a step
};
// Of stages alike the first, whose ranks keep most activations.
std::vector<StagePlan> plan_stages(const Config& c, const Assumptions& assumptions) {
  const std::vector<bool> is_moe = moe_blocks(c.moe, c.model.n_layers);
  std::vector<StagePlan> plans;
  std::set<std::vector<bool>> known;
  int stage = 0;
  for (const Stage& blocks : cut_into_stages(c.model, c.moe, c.train.seq_len, c.parallel.pipeline)) {
    std::vector<bool> kind(is_moe.begin() + blocks.begin, is_moe.begin() + blocks.end);
    kind.push_back(blocks.begin == 0);
    kind.push_back(blocks.end == c.model.n_layers);
    if (known.insert(std::move(kind)).second) {
      StatePlan state = plan_state(c, blocks, c.parallel.tensor - 1, assumptions);
      std::vector<PlannedTraffic> traffic = plan_state_traffic(c, stage * c.parallel.data * c.parallel.tensor, state);
      plans.push_back({stage, blocks, std::move(state), std::move(traffic)});
    }
    ++stage;
  }
  return plans;
}

MemoryPlan memory_of(const Config& c, const std::vector<StagePlan>& stages,
                     const std::vector<ActivationPlan>& activations, const Assumptions& assumptions) {
  MemoryPlan most;
  for (std::size_t s = 0; s < stages.size(); ++s) {
    const MemoryPlan plan =
        plan_memory(c, stages[s].stage, stages[s].blocks, stages[s].state, activations[s], assumptions);
    if (plan.together > most.together) most = plan;
  }
  return most;
}

std::vector<ActivationPlan> activations_of(const Config& c, const std::vector<StagePlan>& stages,
                                           const Assumptions& assumptions) {
  std::vector<ActivationPlan> plans;
  for (const StagePlan& stage : stages) plans.push_back(plan_activations(c, stage.blocks, assumptions));
  return plans;
}

// Adds what its slowest stage takes and sends.
void predict(LayoutPlan& plan, const Config& c, const std::vector<StagePlan>& stages, const Hardware& h,
             const Assumptions& assumptions) {
  for (const auto& [stage, blocks, state, once] : stages) {
    const int rank = stage * c.parallel.data * c.parallel.tensor;
    std::vector<PlannedTraffic> traffic = plan_pass_traffic(c, rank, blocks, state, assumptions);
    traffic.insert(traffic.end(), once.begin(), once.end());
    const TimePlan time = plan_time(c, blocks, state, traffic, stage, h, assumptions);
    if (time.step <= plan.time.step) continue;
    plan.time = time;
    plan.traffic = std::move(traffic);
  }
  const double ranks = double(c.parallel.pipeline) * c.parallel.data * c.parallel.tensor,
               flops = count_model(c.model, c.moe, c.train.seq_len).flops_per_token *
                       double(c.train.global_batch * c.train.seq_len);
  plan.utilisation = flops / plan.time.step / (ranks * 1e12 * h.peak);
}

// The keys of `violations` are enough: a divisor of the ranks divides them.
bool is_legal(Config config, const ParallelConfig& parallel) {
  config.parallel = parallel;
  config.train.micro_batch = 0;
  return violations(config).empty();
}

bool is_better(const LayoutPlan& a, const LayoutPlan& b, const Hardware& h) {
  if (a.fits(h) != b.fits(h)) return a.fits(h);
  if (a.fits(h) && a.time.step != b.time.step) return a.time.step < b.time.step;
  return a.memory.together < b.memory.together;
}

// The best way to compute with the layout.
LayoutPlan best_of(Config c, const Hardware& h, const Assumptions& assumptions) {
  const std::vector<StagePlan> stages = plan_stages(c, assumptions);
  std::optional<LayoutPlan> best;
  for (const int micro_batch : divisors(c.train.global_batch / c.parallel.data)) {
    c.train.micro_batch = micro_batch;
    std::vector<ActivationPlan> activations = activations_of(c, stages, assumptions);
    for (const Recompute again : {Recompute::none, Recompute::attention, Recompute::ffn, Recompute::block}) {
      c.train.recompute = again;
      for (ActivationPlan& stage : activations) stage.recompute = again;
      LayoutPlan candidate{.parallel = c.parallel,
                           .micro_batch = micro_batch,
                           .recompute = again,
                           .memory = memory_of(c, stages, activations, assumptions),
                           .time = {}};
      if (best && (best->fits(h) ? !candidate.fits(h) : candidate.memory.together > best->memory.together)) continue;
      predict(candidate, c, stages, h, assumptions);
      if (!best || is_better(candidate, *best, h)) best = std::move(candidate);
    }
  }
  return *best;
}

}  // namespace

std::vector<ParallelConfig> layouts_of(const Config& config, int ranks) {
  const ParallelConfig given = [&] {
    ParallelConfig p = config.parallel;
    p.data = 0;
    p.pipeline = p.tensor = p.expert = p.expert_tensor = 1;
    p.shard_optimizer = false;
    return p;
  }();
  // Of each axis alone what the model allows, then what fits together.
  const auto legal = [&](int ParallelConfig::*axis) {
    std::vector<int> sizes;
    for (const int size : divisors(ranks)) {
      ParallelConfig p = given;
      p.*axis = size;
      if (is_legal(config, p)) sizes.push_back(size);
    }
    return sizes;
  };
  const std::vector<int> tensors = legal(&ParallelConfig::tensor), experts = legal(&ParallelConfig::expert),
                         parts = legal(&ParallelConfig::expert_tensor);
  std::vector<ParallelConfig> layouts;
  for (const int pipeline : legal(&ParallelConfig::pipeline))
    for (const int tensor : tensors)
      for (const int expert : experts)
        for (const int expert_tensor : parts) {
          const int stage = ranks / pipeline;
          if (stage % tensor != 0 || stage % (std::int64_t{expert} * expert_tensor) != 0) continue;
          ParallelConfig p = given;
          p.data = stage / tensor;
          p.pipeline = pipeline;
          p.tensor = tensor;
          p.expert = expert;
          p.expert_tensor = expert_tensor;
          if (!is_legal(config, p)) continue;
          layouts.push_back(p);
          p.shard_optimizer = true;
          if (ranks > 1) layouts.push_back(p);
        }
  return layouts;
}

LayoutPlan plan_layout(const Config& c, const Hardware& hardware, const Assumptions& assumptions) {
  const std::vector<StagePlan> stages = plan_stages(c, assumptions);
  LayoutPlan plan{.parallel = c.parallel,
                  .micro_batch = c.train.micro_batch,
                  .recompute = c.train.recompute,
                  .memory = memory_of(c, stages, activations_of(c, stages, assumptions), assumptions),
                  .time = {}};
  predict(plan, c, stages, hardware, assumptions);
  return plan;
}

std::vector<LayoutPlan> search_layouts(const Config& config, int ranks, const Hardware& hardware,
                                       const Assumptions& assumptions) {
  std::vector<LayoutPlan> plans;
  for (const ParallelConfig& parallel : layouts_of(config, ranks)) {
    Config c = config;
    c.parallel = parallel;
    plans.push_back(best_of(resolved(c, ranks), hardware, assumptions));
  }
  std::ranges::stable_sort(plans, [&](const LayoutPlan& a, const LayoutPlan& b) { return is_better(a, b, hardware); });
  return plans;
}

}  // namespace switchyard
