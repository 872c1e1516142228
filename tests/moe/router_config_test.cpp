#include "moe/router_config.h"

#include <gtest/gtest.h>

namespace switchyard {
namespace {

// What most routers have, as printed in their papers or set in their authors' code.
struct Published {
  RouterKind kind;
  std::int64_t top_k;
  bool renormalise;
  double capacity_factor;  // 0: dropless
  double balance;
  BalanceCounts counts;
  BalanceScope scope;
};

TEST(RouterPreset, HasThePublishedNumbers) {
  using enum RouterKind;
  using enum BalanceCounts;
  using enum BalanceScope;
  for (const Published& p : {
           Published{switch_top_1, 1, false, 1.25, 0.01, first, group},  // arXiv 2101.03961, sections 2.2 and 2.4
           {gshard, 2, true, 1, 0.01, first, group},                     // arXiv 2006.16668, capacity 2 N / (G E)
           {glam, 2, true, 1, 0.01, first, group},                       // arXiv 2112.06905, the same
           {noisy_top_k, 4, true, 0, 0, first, micro_batch},             // arXiv 1701.06538
           {mixtral, 2, true, 0, 0.001, all, micro_batch},               // router_aux_loss_coef
           {st_moe, 2, true, 1.25, 0.01, all, group},                    // arXiv 2202.08906
           {expert_choice, 2, false, 1, 0, first, group},                // arXiv 2202.09368, c = 2
           {soft, 0, false, 0, 0, first, group},
           {deepseek_v2, 6, false, 0, 0.003, mean, group},  // arXiv 2405.04434, a_1
           {deepseek_v3, 8, true, 0, 0.0001, mean, group},  // arXiv 2412.19437, alpha
           {batch_prioritised, 2, false, 1, 0.01, first, group},
           {hash, 1, true, 0, 0, first, group},
       }) {
    const RouterConfig router = router_preset(p.kind);
    SCOPED_TRACE(static_cast<int>(p.kind));
    EXPECT_EQ(router.kind, p.kind);
    EXPECT_EQ(router.top_k, p.top_k);
    EXPECT_EQ(router.renormalise, p.renormalise);
    EXPECT_EQ(router.capacity_factor, p.capacity_factor);
    EXPECT_EQ(router.balance_loss, p.balance);
    EXPECT_EQ(router.balance_counts, p.counts);
    EXPECT_EQ(router.balance_scope, p.scope);

    // And what only one or two have.
    EXPECT_EQ(router.scores, p.kind == deepseek_v3 ? Scoring::sigmoid
                             : p.kind == hash      ? Scoring::hash
                                                   : Scoring::softmax);
    EXPECT_EQ(router.choice, p.kind == expert_choice ? Choosing::experts : Choosing::tokens);
    EXPECT_EQ(router.admission, p.kind == batch_prioritised ? Admission::priority : Admission::token);
    EXPECT_EQ(router.jitter, p.kind == switch_top_1 ? 0.01 : 0);
    EXPECT_EQ(router.noise, p.kind == noisy_top_k);
    EXPECT_EQ(router.second_threshold, p.kind == gshard ? 0.5 : 0) << "2 g_2 > U";
    EXPECT_EQ(router.weight_scale, p.kind == deepseek_v3 ? 2.5 : 1);
    EXPECT_EQ(router.bias, p.kind == deepseek_v3);
    EXPECT_EQ(router.bias_rate, 0.001);
    EXPECT_EQ(router.expert_groups, p.kind == deepseek_v2 || p.kind == deepseek_v3 ? 8 : 1);
    EXPECT_EQ(router.groups_met, p.kind == deepseek_v2 ? 3 : p.kind == deepseek_v3 ? 4 : 0);
    EXPECT_EQ(router.group_best, p.kind == deepseek_v3 ? 2 : 1);
    EXPECT_EQ(router.device_loss, p.kind == deepseek_v2 ? 0.05 : 0) << "a_2";
    EXPECT_EQ(router.communication_loss, p.kind == deepseek_v2 ? 0.02 : 0) << "a_3";
    EXPECT_EQ(router.importance_loss, p.kind == noisy_top_k ? 0.1 : 0);
    EXPECT_EQ(router.load_loss, p.kind == noisy_top_k ? 0.1 : 0);
    EXPECT_EQ(router.z_loss, p.kind == st_moe ? 0.001 : 0);
    EXPECT_EQ(router.device_capacity, 0);
    EXPECT_EQ(router.expert_cap, 0);
    EXPECT_FALSE(router.allow_future_tokens) << "nobody accepts that for the user";
  }
  EXPECT_EQ(router_preset(switch_top_1).init_scale, 0.1);
  EXPECT_EQ(router_preset(noisy_top_k).init_scale, 0) << "W_g = 0";
  EXPECT_EQ(router_preset(deepseek_v2).spared_groups, 0.1);
}

}  // namespace
}  // namespace switchyard
