#pragma once

#include <gtest/gtest.h>

#include <functional>

#include "moe/layer.h"

// Every published router, and what else a configuration makes of one.
namespace switchyard::test {

struct Case {
  std::string name;
  MoeConfig config;
};

inline MoeConfig softmax_of(std::int64_t top_k, bool renormalise, double capacity_factor, BalanceCounts counts) {
  return {.experts = 4,
          .d_ff = kWidth,
          .router = {.top_k = top_k,
                     .renormalise = renormalise,
                     .capacity_factor = capacity_factor,
                     .balance_loss = 0.3,
                     .balance_counts = counts,
                     .z_loss = 0.2}};
}

inline MoeConfig with_shared(MoeConfig config) {
  config.shared_experts = 2;
  return config;
}

inline MoeConfig ungated(MoeConfig config) {
  config.activation = Activation::relu;
  return config;
}

inline MoeConfig with_dropout(MoeConfig config) {
  config.expert_dropout = 0.4;
  return config;
}

inline MoeConfig padded(MoeConfig config) {
  config.dispatch = Dispatch::padded;
  return config;
}

// In halves, of one group each where there are 8 tokens.
inline MoeConfig overlapped(MoeConfig config) {
  config.router.group_size = 4;
  config.overlap = Overlap::on;
  return config;
}

// A published router, its losses large enough to see.
inline MoeConfig published(RouterKind kind, std::int64_t experts,
                           const std::function<void(RouterConfig&)>& change = {}) {
  MoeConfig config{.experts = experts, .d_ff = kWidth, .router = router_preset(kind)};
  RouterConfig& router = config.router;
  for (double* coefficient : {&router.balance_loss, &router.device_loss, &router.communication_loss,
                              &router.importance_loss, &router.load_loss, &router.z_loss})
    if (*coefficient > 0) *coefficient = 0.3;
  if (change) change(router);
  return config;
}

inline std::vector<Case> all_cases() {
  const auto small_groups = [](RouterConfig& r) { r.expert_groups = 4, r.groups_met = 2, r.top_k = 3; };
  std::vector<Case> cases{
      {"top1", softmax_of(1, false, 1.0, BalanceCounts::first)},
      {"top1_dropless", softmax_of(1, false, 0, BalanceCounts::first)},
      {"top2", softmax_of(2, true, 1.0, BalanceCounts::first)},
      {"top2_dropless", softmax_of(2, true, 0, BalanceCounts::all)},
      {"top3", softmax_of(3, true, 0.75, BalanceCounts::all)},
      {"top1_padded", padded(softmax_of(1, false, 1.0, BalanceCounts::first))},
      {"top2_padded", padded(softmax_of(2, true, 1.0, BalanceCounts::first))},
      {"top2_in_halves", overlapped(softmax_of(2, true, 1.0, BalanceCounts::first))},
      {"top3_padded_in_halves", overlapped(padded(softmax_of(3, true, 0.75, BalanceCounts::all)))},
      {"expert_choice_in_halves", overlapped(published(RouterKind::expert_choice, 8))},
      {"switch", published(RouterKind::switch_top_1, 4, [](auto& r) { r.jitter = 0.3; })},
      {"gshard", published(RouterKind::gshard, 4)},
      {"glam", published(RouterKind::glam, 4)},
      {"noisy_top_k", published(RouterKind::noisy_top_k, 8, [](auto& r) { r.top_k = 2; })},
      {"noisy_top_k_of_groups",
       published(RouterKind::noisy_top_k, 4, [](auto& r) { r.top_k = 3, r.balance_scope = BalanceScope::group; })},
      {"mixtral", published(RouterKind::mixtral, 4)},
      {"st_moe", published(RouterKind::st_moe, 4, [](auto& r) { r.capacity_factor = 0.8; })},
      {"expert_choice", published(RouterKind::expert_choice, 4)},
      {"expert_choice_padded", padded(published(RouterKind::expert_choice, 8))},
      {"expert_choice_capped", published(RouterKind::expert_choice, 8, [](auto& r) { r.expert_cap = 3; })},
      {"soft", published(RouterKind::soft, 4)},
      {"deepseek_v2", published(RouterKind::deepseek_v2, 8, small_groups)},
      {"deepseek_v2_of_micro_batches",
       published(RouterKind::deepseek_v2, 8,
                 [&](auto& r) { small_groups(r), r.balance_scope = BalanceScope::micro_batch; })},
      {"deepseek_v2_dropping", published(RouterKind::deepseek_v2, 8,
                                         [&](auto& r) {
                                           small_groups(r);
                                           r.device_capacity = 0.7, r.spared_groups = 0.4;
                                         })},
      {"deepseek_v2_dropping_by_score", published(RouterKind::deepseek_v2, 8,
                                                  [&](auto& r) {
                                                    small_groups(r);
                                                    r.renormalise = true;
                                                    r.device_capacity = 0.7, r.spared_groups = 0;
                                                  })},
      {"deepseek_v3", published(RouterKind::deepseek_v3, 8,
                                [](auto& r) { r.expert_groups = 4, r.groups_met = 2, r.group_best = 2, r.top_k = 3; })},
      {"batch_prioritised", published(RouterKind::batch_prioritised, 4)},
      {"batch_prioritised_padded", padded(published(RouterKind::batch_prioritised, 4))},
      {"shared_experts", with_shared(published(RouterKind::deepseek_v2, 8, small_groups))},
      {"ungated_experts", ungated(with_shared(padded(softmax_of(2, true, 1.0, BalanceCounts::first))))},
      {"expert_dropout", with_dropout(softmax_of(2, true, 1.0, BalanceCounts::first))},
      {"expert_dropout_padded_in_halves",
       with_dropout(overlapped(padded(softmax_of(2, true, 1.0, BalanceCounts::first))))},
      {"expert_dropout_of_experts_that_choose", with_dropout(published(RouterKind::expert_choice, 8))},
      {"hash", published(RouterKind::hash, 4)},
      {"hash_of_two", published(RouterKind::hash, 4, [](auto& r) { r.top_k = 2; })},
  };
  for (Case& c : cases) {
    RouterConfig& r = c.config.router;
    if (!c.config.activation) c.config.activation = Activation::swiglu;
    if (r.group_size == 0) r.group_size = 8;
    if (r.top_k == 0) r.top_k = c.config.experts;
    if (r.groups_met == 0) r.groups_met = r.expert_groups;
  }
  return cases;
}
inline const std::vector<Case> kRouters = all_cases();

inline const MoeConfig& router_named(const std::string& name) {
  return std::ranges::find(kRouters, name, &Case::name)->config;
}

// A test of each of them.
class EachRouter : public testing::TestWithParam<std::size_t> {
 protected:
  const MoeConfig& config() const { return kRouters[GetParam()].config; }
};
inline auto each_router() { return testing::Range(std::size_t{0}, kRouters.size()); }
inline std::string name_of_router(const testing::TestParamInfo<std::size_t>& info) { return kRouters[info.param].name; }

}  // namespace switchyard::test
