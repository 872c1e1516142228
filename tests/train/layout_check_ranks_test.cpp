#include "train/layout_check.h"

#include <gtest/gtest.h>

#include "ranks.h"
#include "train/small_run.h"

namespace switchyard {
namespace {

constexpr int kSteps = 2;

Config small_config(const test::RunDir& dir) {
  Config config = dir.config(1, 1);
  config.parallel = {};
  config.train.global_batch = 16;
  return config;
}

TEST(LayoutCheck, ListsWhatTheConfigurationAllows) {
  const auto self = make_self_group();
  const test::RunDir dir("legal", *self);
  Config config = small_config(dir);
  EXPECT_EQ(legal_layouts(config, 1, 2).size(), 1u);
  // tensor 1 or 2, and experts as they are, spread over 2, or cut over 2; two stages; each without and with a
  // shared-out optimizer
  EXPECT_EQ(legal_layouts(config, 2, 2).size(), 14u);
  EXPECT_EQ(legal_layouts(config, 3, 2).size(), 0u);  // 16 samples, 4 heads and 4 experts over 3
  EXPECT_EQ(legal_layouts(config, 2, 16).size(), 8u) << "16 parts leave one sample each, for one data rank";
  config.moe.experts = 0;
  EXPECT_EQ(legal_layouts(config, 2, 2).size(), 6u);
}

TEST(LayoutCheck, EveryLayoutIsWithinRounding) {
  test::on_ranks({1, 2, 4}, [](ProcessGroup& world) {
    const test::RunDir dir("check", world);
    const Config config = small_config(dir);
    const LayoutReference reference = train_alone(config, kSteps, 2);
    for (const ParallelConfig& parallel : legal_layouts(config, world.size(), 2)) {
      const LayoutDifference d = compare_layout(config, parallel, 2, reference, world);
      EXPECT_TRUE(d.is_rounding()) << describe(Layout(parallel, world.size()))
                                   << (parallel.shard_optimizer ? ", sharded" : "") << ": loss " << d.loss
                                   << ", gradient " << d.gradient << " of " << d.worst << ", parameters "
                                   << d.parameters << ", routing " << d.routing;
    }
  });
}

// What a layout with a fault would give, seen from the other side: a reference that is off.
TEST(LayoutCheck, SeesAGradientThatIsTwiceAsLargeAndAParameterThatMoved) {
  test::on_ranks({2}, [](ProcessGroup& world) {
    const test::RunDir dir("fault", world);
    const Config config = small_config(dir);
    const ParallelConfig parallel{.data = 2, .expert = 2};
    const LayoutReference good = train_alone(config, kSteps, 2);
    const std::string name = "model.layers.1.mlp.experts.down_proj";
    const auto with = [&](auto change) {
      LayoutReference wrong = good;
      change(wrong);
      return compare_layout(config, parallel, 2, wrong, world);
    };
    const LayoutDifference doubled = with([&](LayoutReference& r) {
      Tensor g = cast(cast(r.parameters.at(name).gradient, DType::bf16), DType::f32);  // a copy, rounded
      for (std::int64_t i = 0; i < g.numel(); ++i) g.data<float>()[i] *= 0.5f;
      r.parameters.at(name).gradient = g;
    });
    EXPECT_FALSE(doubled.is_rounding());
    EXPECT_NEAR(doubled.gradient, 1, 0.02);
    EXPECT_EQ(doubled.worst, name);
    EXPECT_LT(doubled.loss, 1e-5);

    const LayoutDifference moved =
        with([&](LayoutReference& r) { r.parameters.at(name).after = r.parameters.at(name).before; });
    EXPECT_FALSE(moved.is_rounding());
    EXPECT_LT(moved.gradient, 1e-4);

    const LayoutDifference routed = with([](LayoutReference& r) { r.steps[1].expert_load[0][1] += 1e-3; });
    EXPECT_FALSE(routed.is_rounding());
    const LayoutDifference lost = with([](LayoutReference& r) { r.steps[0].loss += 1e-3; });
    EXPECT_FALSE(lost.is_rounding());
  });
}

}  // namespace
}  // namespace switchyard
