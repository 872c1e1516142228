#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "train/config_rules.h"
#include "train/layout_search.h"
#include "train/planned_rows.h"

namespace switchyard {
namespace {

Config small() {
  Config c;
  c.model = {.d_model = 32, .n_layers = 4, .n_heads = 4, .n_kv_heads = 2, .d_ff = 24};
  c.moe = {.experts = 4};
  c.train = {.seq_len = 8, .global_batch = 12};
  return c;
}

auto sizes(const ParallelConfig& p) {
  return std::tuple(p.data, p.pipeline, p.tensor, p.expert, p.expert_tensor, p.shard_optimizer);
}

// The definition: every combination that the rules let pass.
TEST(LayoutSearch, FindsEveryLegalLayout) {
  for (const int ranks : {1, 2, 3, 4, 6, 8, 12}) {
    std::set<decltype(sizes({}))> found, legal;
    for (const ParallelConfig& p : layouts_of(small(), ranks)) EXPECT_TRUE(found.insert(sizes(p)).second);
    for (int pipeline = 1; pipeline <= ranks; ++pipeline)
      for (int tensor = 1; tensor <= ranks; ++tensor)
        for (int expert = 1; expert <= ranks; ++expert)
          for (int parts = 1; parts <= ranks; ++parts) {
            Config c = small();
            c.parallel = {.pipeline = pipeline, .tensor = tensor, .expert = expert, .expert_tensor = parts};
            try {
              check_layout(c, ranks);
            } catch (const Error&) {
              continue;
            }
            c.parallel.data = ranks / (pipeline * tensor);
            if (!violations(c).empty()) continue;
            legal.insert(sizes(c.parallel));
            c.parallel.shard_optimizer = true;
            if (ranks > 1) legal.insert(sizes(c.parallel));
          }
    EXPECT_EQ(found, legal) << ranks << " ranks";
  }
}

TEST(LayoutSearch, RanksWhatFitsByTimeAndTheRestByMemory) {
  Hardware hardware = preset_hardware("h100");
  const std::vector<LayoutPlan> roomy = search_layouts(small(), 4, hardware, {.device = hardware.type});
  ASSERT_GT(roomy.size(), 4u);
  for (std::size_t i = 0; i + 1 < roomy.size(); ++i) EXPECT_LE(roomy[i].time.step, roomy[i + 1].time.step);
  for (const LayoutPlan& plan : roomy) EXPECT_TRUE(plan.fits(hardware));

  hardware.memory = 1e-6;
  const std::vector<LayoutPlan> tight = search_layouts(small(), 4, hardware, {.device = hardware.type});
  EXPECT_EQ(tight.size(), roomy.size());
  for (std::size_t i = 0; i + 1 < tight.size(); ++i) EXPECT_LE(tight[i].memory.together, tight[i + 1].memory.together);
  EXPECT_LT(tight[0].memory.together, roomy[0].memory.together);
}

// Groups of 8 tokens, 2 choices each of 4 experts; a rank has 4 groups.
TEST(PlannedRows, AreThoseThatTheRouterLetsGo) {
  const auto sent = [](const std::function<void(RouterConfig&)>& change) {
    Config c = small();
    c.train.micro_batch = 4;
    c.parallel = {.data = 3};
    c.moe.router.capacity_factor = 0;
    change(c.moe.router);
    return planned_rows(resolved(c), {}).sent;
  };
  EXPECT_EQ(sent([](auto&) {}), 64);
  EXPECT_EQ(sent([](auto& r) { r.capacity_factor = 0.75; }), 48);
  EXPECT_EQ(sent([](auto& r) { r.capacity_factor = 2; }), 64);
  EXPECT_EQ(sent([](auto& r) { r.choice = Choosing::experts, r.capacity_factor = 1.5; }), 96) << "6 tokens an expert";
  EXPECT_EQ(sent([](auto& r) { r.choice = Choosing::experts, r.capacity_factor = 9; }), 128) << "all tokens";
  EXPECT_EQ(sent([](auto& r) { r.expert_groups = 2, r.device_capacity = 0.5, r.spared_groups = 0; }), 32);
  EXPECT_EQ(sent([](auto& r) { r.expert_groups = 2, r.device_capacity = 0.5, r.spared_groups = 0.25; }), 40);
  EXPECT_EQ(sent([](auto& r) { r.expert_groups = 2, r.device_capacity = 1.5; }), 64);
}

// An all-gather of n bytes by 16 ranks of two nodes of 8: each sends 15/16 n; 3 doublings inside a node, 1 between.
TEST(TimePlan, CollectivesTakeWhatTheTwoLevelsTake) {
  const Hardware h{
      .node_devices = 8, .node_bandwidth = 100, .node_latency = 2, .network_bandwidth = 5, .network_latency = 10};
  PlannedTraffic t{Group::data, Collective::all_gather, Phase::forward, 1, 15'000'000};
  EXPECT_NEAR(collective_seconds(t, {16, 1}, h), 3 * 2e-6 + 10e-6 + 15e6 / 8 / 5e9, 1e-12);
  EXPECT_NEAR(collective_seconds(t, {8, 1}, h), 3 * 2e-6 + 15e6 / 100e9, 1e-12);
  EXPECT_NEAR(collective_seconds(t, {16, 8}, h), 4 * 10e-6 + 15e6 / 5e9, 1e-12);
  t.collective = Collective::all_reduce;
  EXPECT_NEAR(collective_seconds(t, {16, 1}, h), 2 * (3 * 2e-6 + 10e-6) + 15e6 / 8 / 5e9, 1e-12);
  t.collective = Collective::all_to_all;  // 7 ranks inside, 8 outside
  EXPECT_NEAR(collective_seconds(t, {16, 1}, h), 7 * 2e-6 + 8 * 10e-6 + 8e6 / 5e9, 1e-12);
}

}  // namespace
}  // namespace switchyard
