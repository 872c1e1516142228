#include <gtest/gtest.h>

#include "ranks.h"
#include "train/layout_check.h"
#include "train/small_run.h"

namespace switchyard {
namespace {

// Every published router in a model that computes its blocks again: what is random then comes twice, on every layout
// alike.
std::vector<Config> routers(const test::RunDir& dir, ProcessGroup& world) {
  std::vector<Config> configs;
  for (const RouterConfig& router : test::small_routers()) {
    Config config = dir.config(world.size(), 1);
    config.train.global_batch = 16;
    config.train.recompute = Recompute::block;
    config.moe.router = router;
    if (router.kind == RouterKind::deepseek_v3) config.moe.shared_experts = 1;
    if (router.kind == RouterKind::switch_top_1) config.moe.expert_dropout = 0.2;
    if (router.kind == RouterKind::top_k) config.moe.router.balance_scope = BalanceScope::global;
    configs.push_back(resolved(config, world.size()));
  }
  return configs;
}

std::string name_of(const Config& config) { return text("router ", int(config.moe.router.kind)); }

TEST(Routers, EveryLayoutIsWithinRounding) {
  test::on_ranks({2, 4}, [](ProcessGroup& world) {
    const test::RunDir dir("routers", world);
    const int ranks = world.size();
    for (const Config& config : routers(dir, world)) {
      const LayoutReference reference = train_alone(config, 2, 2);
      for (const ParallelConfig& parallel :
           {ParallelConfig{.data = ranks, .expert = ranks}, ParallelConfig{.data = ranks / 2, .tensor = 2, .expert = 2},
            ParallelConfig{.data = 1, .tensor = ranks, .expert_tensor = 2},
            ParallelConfig{.data = ranks / 2, .pipeline = 2}}) {
        const LayoutDifference d = compare_layout(config, parallel, 2, reference, world);
        EXPECT_TRUE(d.is_rounding()) << name_of(config) << ", " << describe(Layout(parallel, ranks)) << ": loss "
                                     << d.loss << ", gradient " << d.gradient << " of " << d.worst << ", parameters "
                                     << d.parameters << ", routing " << d.routing;
      }
    }
  });
}

TEST(Routers, ResumeBitForBit) {
  test::on_ranks({1, 2}, [](ProcessGroup& world) {
    const test::RunDir dir("routers-resume", world);
    for (Config& config : routers(dir, world)) {
      const auto train = [&](const std::string& run, std::vector<int> parts) {
        config.run.dir = (dir.path() / text(run, int(config.moe.router.kind))).string();
        std::vector<double> losses;
        for (const int steps : parts) {
          Trainer trainer(config, world, ProgressStyle::none);
          for (int i = 0; i < steps; ++i) {
            const StepMetrics m = trainer.step();
            losses.insert(losses.end(), {m.loss, m.balance_loss, m.grad_norm, m.drop_fraction});
          }
          trainer.save();
        }
        return losses;
      };
      EXPECT_EQ(train("halves", {2, 2}), train("whole", {4})) << name_of(config);
    }
  });
}

// A line of metrics.jsonl tells what was dropped twice, of the step and of each block.
TEST(Routers, DropWhatTheirHealthSaysTheyDo) {
  test::on_ranks({1, 2}, [](ProcessGroup& world) {
    const test::RunDir dir("routers-drops", world);
    for (Config& config : routers(dir, world)) {
      config.health.every = 1;
      Trainer trainer(config, world, ProgressStyle::none);
      const StepMetrics m = trainer.step();
      ASSERT_EQ(m.router.size(), 1u);
      EXPECT_NEAR(m.drop_fraction, m.router[0].health.drop_fraction, 1e-6) << name_of(config);
      double load = 0;
      for (const double share : m.expert_load[0]) load += share;
      EXPECT_NEAR(load, 1 - m.drop_fraction, 1e-6) << name_of(config);
    }
  });
}

}  // namespace
}  // namespace switchyard
