#include "moe/health.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace switchyard {
namespace {

double ratio(double part, double whole) { return whole > 0 ? part / whole : 0; }

double sum(std::span<const double> xs) { return std::accumulate(xs.begin(), xs.end(), 0.0); }

// Between neighbours in the order of size, in proportion: 0 is the smallest, 1 the largest.
double quantile(const std::vector<double>& sorted, double q) {
  const double place = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(place), above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (place - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

void read_load(RouterHealth& health, const HealthSums& sums) {
  const auto experts = static_cast<std::size_t>(sums.experts);
  health.load.assign(experts, 0);
  for (std::size_t i = 0; i < sums.chosen_KE.size(); ++i) health.load[i % experts] += sums.chosen_KE[i];
  health.dead_experts = ratio(static_cast<double>(std::ranges::count(health.load, 0.0)), static_cast<double>(experts));
  const double mean = sum(health.load) / static_cast<double>(experts);
  double squares = 0;
  for (double& load : health.load) {
    load = ratio(load, mean);
    squares += (load - 1) * (load - 1);
  }
  health.load_cv = std::sqrt(squares / static_cast<double>(experts));

  std::vector<double> sorted = health.load;
  std::ranges::sort(sorted);
  health.load_min = sorted.front();
  health.load_p10 = quantile(sorted, 0.1);
  health.load_p50 = quantile(sorted, 0.5);
  health.load_p90 = quantile(sorted, 0.9);
  health.load_max = sorted.back();
}

void read_drops(RouterHealth& health, const HealthSums& sums) {
  const auto experts = static_cast<std::size_t>(sums.experts);
  for (std::size_t k = 0; k < sums.kept_K.size(); ++k) {
    const double chosen = sum(std::span(sums.chosen_KE).subspan(k * experts, experts));
    health.dropped.push_back(ratio(chosen - sums.kept_K[k], chosen));
  }
  const double chosen = sum(sums.chosen_KE);
  health.drop_fraction = ratio(chosen - sum(sums.kept_K), chosen);
  health.dropped_gate = ratio(sums.dropped_gate, sums.gate);
}

}  // namespace

Observation observe(const Tensor& logits_TE, const Tensor& before_TE, const Tensor& p_TE, const Tensor& weight_TK,
                    const Tensor& expert_TK, const Tensor& slot_TK) {
  const std::int64_t tokens = expert_TK.dim(0), top_k = expert_TK.dim(1), experts = p_TE.dim(1);
  SY_CHECK(logits_TE.shape() == p_TE.shape() && p_TE.dim(0) == tokens && weight_TK.shape() == expert_TK.shape() &&
               slot_TK.shape() == expert_TK.shape() && (!before_TE || before_TE.shape() == p_TE.shape()),
           "observe: logits ", logits_TE.shape(), ", probabilities ", p_TE.shape(), ", weights ", weight_TK.shape(),
           ", experts ", expert_TK.shape(), " and slots ", slot_TK.shape(), " are not of the same tokens");
  const Device device = p_TE.device();
  const auto empty = [device](const Shape& shape, DType dtype) { return Tensor::empty(shape, dtype, device); };
  Observation seen{.sums = {.p_E = empty({experts}, DType::f32),
                            .kept_K = empty({top_k}, DType::i32),
                            .gate_2 = empty({2}, DType::f32),
                            .logit_1 = empty({1}, DType::f32),
                            .agreed_1 = empty({1}, DType::i32)},
                   .chosen_KE = empty({top_k, experts}, DType::i32)};
  const Kernels& k = kernels(device);
  k.observe_routing(seen.sums, logits_TE, before_TE, p_TE, weight_TK, expert_TK, slot_TK);
  Tensor chosen_GKE = seen.chosen_KE.view({1, top_k, experts});
  k.count_choices(chosen_GKE, expert_TK, {.experts = experts, .group = std::max<std::int64_t>(tokens, 1)});
  return seen;
}

RouterHealth health_of(const HealthSums& sums, const HealthContext& context) {
  RouterHealth health;
  read_load(health, sums);
  read_drops(health, sums);
  for (const double p : sums.p_E)
    if (const double mean = ratio(p, sums.tokens); mean > 0) health.entropy_of_mean -= mean * std::log(mean);
  health.mean_entropy = ratio(sums.entropy, sums.tokens);
  health.evenness = std::exp(health.entropy_of_mean) / static_cast<double>(sums.experts);
  health.largest_logit = sums.largest_logit;
  health.balance_term = sums.balance_term;
  health.z_term = context.z_coefficient * sums.z;
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  health.agreement = context.has_before ? ratio(sums.agreed, sums.tokens) : kNone;
  if (!context.has_scores)
    health.entropy_of_mean = health.mean_entropy = health.evenness = health.largest_logit = health.agreement = kNone;
  return health;
}

std::span<const Reading> readings() {
  static constexpr Reading kReadings[] = {{"load_min", &RouterHealth::load_min},
                                          {"load_p10", &RouterHealth::load_p10},
                                          {"load_p50", &RouterHealth::load_p50},
                                          {"load_p90", &RouterHealth::load_p90},
                                          {"load_max", &RouterHealth::load_max},
                                          {"load_cv", &RouterHealth::load_cv},
                                          {"dead_experts", &RouterHealth::dead_experts},
                                          {"entropy_of_mean", &RouterHealth::entropy_of_mean},
                                          {"mean_entropy", &RouterHealth::mean_entropy},
                                          {"evenness", &RouterHealth::evenness},
                                          {"drop_fraction", &RouterHealth::drop_fraction},
                                          {"dropped_gate", &RouterHealth::dropped_gate},
                                          {"largest_logit", &RouterHealth::largest_logit},
                                          {"balance_term", &RouterHealth::balance_term},
                                          {"z_term", &RouterHealth::z_term},
                                          {"agreement", &RouterHealth::agreement}};
  return kReadings;
}

}  // namespace switchyard
