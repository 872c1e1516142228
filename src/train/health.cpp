#include "train/health.h"

#include <cmath>

#include "model/placement.h"
#include "train/host_values.h"

namespace switchyard {
namespace {

// f(sum) for every sum of one block, in one order.
template <class Sums, class F>
void for_each_sum(Sums& sums, F f) {
  for (auto* one :
       {&sums.tokens, &sums.balance_term, &sums.z, &sums.entropy, &sums.gate, &sums.dropped_gate, &sums.agreed})
    f(*one);
  for (auto* many : {&sums.p_E, &sums.kept_K, &sums.chosen_KE})
    for (auto& each : *many) f(each);
}

void add_choices(HealthSums& sums, const RoutingSums& seen, const Tensor& chosen_KE) {
  SY_CHECK(chosen_KE.shape() == Shape({sums.choices, sums.experts}), "health: choices ", chosen_KE.shape(), ", wanted ",
           Shape({sums.choices, sums.experts}));
  const auto counts = host_values<std::int32_t>({seen.agreed_1, seen.kept_K, chosen_KE});
  sums.agreed += counts[0];
  const std::size_t choices = sums.kept_K.size();
  for (std::size_t k = 0; k < choices; ++k) sums.kept_K[k] += counts[1 + k];
  for (std::size_t i = 0; i < sums.chosen_KE.size(); ++i) sums.chosen_KE[i] += counts[1 + choices + i];
}

// Rows that experts took are all the choices that there are.
void add_taken(HealthSums& sums, const RoutingSums& seen, const Tensor& kept_PE) {
  const auto counts = host_values<std::int32_t>({seen.agreed_1, kept_PE});
  sums.agreed += counts[0];
  for (std::size_t i = 0; i + 1 < counts.size(); ++i) {
    sums.kept_K[0] += counts[1 + i];
    sums.chosen_KE[i % sums.chosen_KE.size()] += counts[1 + i];
  }
}

// This rank's micro-batches; blocks of other stages add nothing.
void add(HealthSums& sums, const RoutingStats& stats, bool experts_choose) {
  if (!stats.seen) return;
  const auto& [seen, chosen_KE] = *stats.seen;
  const auto floats =
      host_values<float>({stats.balance_term_1, stats.z_1, stats.entropy_1, seen.gate_2, seen.logit_1, seen.p_E});
  sums.tokens += static_cast<double>(stats.tokens);
  sums.balance_term += floats[0];
  sums.z += floats[1];
  sums.entropy += floats[2];
  if (floats[5] > sums.largest_logit || std::isnan(floats[5])) sums.largest_logit = floats[5];  // a NaN stays
  for (std::size_t e = 0; e < sums.p_E.size(); ++e) sums.p_E[e] += floats[6 + e];
  if (experts_choose) {
    add_taken(sums, seen, stats.kept_PE);
  } else {
    sums.gate += floats[3];
    sums.dropped_gate += floats[4];
    add_choices(sums, seen, chosen_KE);
  }
}

void reduce(std::vector<float>& values, Reduce how, ProcessGroup& world) {
  Tensor all = Tensor::of(std::span<const float>(values), {std::ssize(values)}, Device{});
  world.all_reduce(all, how);
  values.assign(all.data<float>(), all.data<float>() + all.numel());
}

}  // namespace

HealthScope health_scope(const Config& config) {
  const RouterConfig& router = config.moe.router;
  const bool experts_choose = router.choice == Choosing::experts;
  HealthScope scope{.layers = {},
                    .experts = config.moe.experts,
                    .choices = experts_choose ? 1 : router.top_k,
                    .experts_choose = experts_choose,
                    .context = {.z_coefficient = router.z_loss, .has_scores = router.scores != Scoring::hash}};
  const std::vector<bool> is_moe = moe_blocks(config.moe, config.model.n_layers);
  for (std::size_t i = 0; i < is_moe.size(); ++i)
    if (is_moe[i]) scope.layers.push_back(static_cast<std::int64_t>(i));
  return scope;
}

std::vector<LayerHealth> read_health(const std::vector<std::vector<RoutingStats>>& stats, const HealthScope& scope,
                                     ProcessGroup& world) {
  std::vector<HealthSums> blocks(scope.layers.size(), {.experts = scope.experts, .choices = scope.choices});
  for (const auto& micro_batch : stats)
    for (std::size_t i = 0; i < micro_batch.size(); ++i) add(blocks.at(i), micro_batch[i], scope.experts_choose);

  std::vector<float> sums, largest;
  for (HealthSums& block : blocks) {
    for_each_sum(block, [&](double sum) { sums.push_back(static_cast<float>(sum)); });
    largest.push_back(static_cast<float>(block.largest_logit));
  }
  reduce(sums, Reduce::sum, world);
  reduce(largest, Reduce::max, world);

  std::vector<LayerHealth> health;
  const float* next = sums.data();
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    for_each_sum(blocks[i], [&](double& sum) { sum = *next++; });
    blocks[i].largest_logit = largest[i];
    health.push_back({scope.layers[i], health_of(blocks[i], scope.context)});
  }
  return health;
}

}  // namespace switchyard
