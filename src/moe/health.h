#pragma once

#include <span>
#include <vector>

#include "tensor/kernels.h"

namespace switchyard {

// What this rank's tokens add up to where a router's health is read; on the device. Letters as in routing.h.
struct Observation {
  RoutingSums sums;
  Tensor chosen_KE;  // i32: choices before capacity
};

// before_TE are the logits of the same rows by the router weights of the reading before; empty where there was none.
Observation observe(const Tensor& logits_TE, const Tensor& before_TE, const Tensor& p_TE, const Tensor& weight_TK,
                    const Tensor& expert_TK, const Tensor& slot_TK);

// The same of all micro-batches and ranks, on the host, with the other sums of RoutingStats.
struct HealthSums {
  std::int64_t experts, choices;  // E, and K of a token
  double tokens = 0, balance_term = 0, z = 0, entropy = 0;
  double gate = 0, dropped_gate = 0, agreed = 0, largest_logit = 0;
  std::vector<double> p_E = std::vector<double>(static_cast<std::size_t>(experts)),
                      kept_K = std::vector<double>(static_cast<std::size_t>(choices)),
                      chosen_KE = std::vector<double>(static_cast<std::size_t>(choices * experts));
};

// One reading of one router, over the tokens of a step. docs/health.md says how to read each. A number that a router
// has not is a NaN.
struct RouterHealth {
  std::vector<double> load{};     // choices that each expert got, before capacity, as multiples of the mean
  std::vector<double> dropped{};  // of first choices, of second ones, ...: the share that was dropped
  double load_min = 0, load_p10 = 0, load_p50 = 0, load_p90 = 0, load_max = 0;
  double load_cv = 0;                   // standard deviation of load: its coefficient of variation
  double dead_experts = 0;              // share of experts that got no choice
  double entropy_of_mean = 0;           // nats, of the probabilities' mean over tokens
  double mean_entropy = 0;              // nats, mean over tokens
  double evenness = 0;                  // e^entropy_of_mean / experts
  double drop_fraction = 0;             // of choices
  double dropped_gate = 0;              // share of the gate weights that dropped choices had
  double largest_logit = 0;             // in size
  double balance_term = 0, z_term = 0;  // what all losses but z's, and z's, add to the training loss
  double agreement = 0;  // share of tokens whose best expert is that of the reading before; none at the first reading
};

// The z-loss's coefficient, whether there was a reading before, and whether the router has scores at all.
struct HealthContext {
  double z_coefficient = 0;
  bool has_before = false, has_scores = true;
};
RouterHealth health_of(const HealthSums& sums, const HealthContext& context);

// The readings that are one number, by the names that metrics, charts and alarms call them.
struct Reading {
  const char* name;
  double RouterHealth::*value;
};
std::span<const Reading> readings();

}  // namespace switchyard
