#include "train/replay.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "ranks.h"
#include "train/small_run.h"

namespace switchyard {
namespace {

using test::RunDir;

// The health of the step that training made next, and a record of it.
struct Recorded {
  std::vector<LayerHealth> trained;
  Record record;
};
Recorded recorded(const RunDir& dir, const RouterConfig& router, std::int64_t steps, ProcessGroup& world) {
  Config config = dir.config(world.size(), 1);
  config.run.dir += text("-", static_cast<int>(router.kind));
  config.model.n_layers = 4;
  config.moe.router = router;
  config.train.micro_batch = 2;
  config.health.every = 1;
  config = resolved(config, world.size());
  Trainer trainer(config, world, ProgressStyle::none);
  trainer.step();
  trainer.learner().set_balance_scale(3);  // an alarm may have raised it
  trainer.save();
  const std::vector<LayerHealth> trained = trainer.step().router;
  Restored r = restore(config.run.dir, {}, world);
  record_routing(r, steps, config.run.dir + "/decisions", world);
  return {trained, load_record(config.run.dir + "/decisions", world)};
}

// Replaying what was recorded, as it was, is the training step itself: in what was chosen and dropped to the bit.
TEST(Replay, OfThePolicyItselfIsTheTrainingStep) {
  test::on_ranks({1, 2}, [](ProcessGroup& world) {
    const RunDir dir("replay", world);
    const auto self = make_self_group();
    for (const RouterConfig& router : test::small_routers()) {
      if (router.scores == Scoring::hash) continue;
      SCOPED_TRACE(text("kind ", static_cast<int>(router.kind)));
      const auto [trained, record] = recorded(dir, router, 1, world);
      const std::vector<LayerHealth> again = replay(record, policy_of(record, ""), *self);
      ASSERT_EQ(again.size(), 2u);
      for (std::size_t b = 0; b < again.size(); ++b) {
        EXPECT_EQ(again[b].layer, trained[b].layer);
        EXPECT_EQ(again[b].health.load, trained[b].health.load);
        EXPECT_EQ(again[b].health.dropped, trained[b].health.dropped);
        EXPECT_EQ(again[b].health.drop_fraction, trained[b].health.drop_fraction);
        EXPECT_EQ(again[b].health.dead_experts, trained[b].health.dead_experts);
        // f32 sums of 64 tokens, in another order
        EXPECT_NEAR(again[b].health.dropped_gate, trained[b].health.dropped_gate, 1e-5);
        EXPECT_NEAR(again[b].health.mean_entropy, trained[b].health.mean_entropy, 1e-5);
        if (router.balance_scope == BalanceScope::group) {
          EXPECT_NEAR(again[b].health.balance_term, trained[b].health.balance_term, 1e-5);
        }
      }
    }
  });
}

// Top-1 in groups of four with room for one: who comes first stays, as loops over the recorded logits.
TEST(Replay, OfAnotherPolicyIsItsDefinition) {
  test::on_ranks({1, 2}, [](ProcessGroup& world) {
    const RunDir dir("replay-policy", world);
    const auto self = make_self_group();
    const auto [trained, record] = recorded(dir, {.top_k = 2, .capacity_factor = 1.0}, 3, world);
    ASSERT_EQ(record.steps, 3);
    ASSERT_EQ(record.token_T.numel(), 3 * 8 * 8);
    const Policy policy = policy_of(record, "top_k=1 router.renormalise=false capacity_factor=0.5  group_size=4");
    EXPECT_EQ(policy.config.moe.router.group_size, 4);
    const std::vector<LayerHealth> health = replay(record, policy, *self);
    for (std::size_t b = 0; b < 2; ++b) {
      const float* logits = record.blocks[b].logits_TE.data<float>();
      std::vector<double> load(4);
      double dropped = 0;
      for (std::int64_t t = 0; t < 192; ++t) {
        const auto best = std::max_element(logits + 4 * t, logits + 4 * (t + 1)) - (logits + 4 * t);
        ++load[std::size_t(best)];
        for (std::int64_t before = t - t % 4; before < t; ++before)
          if (std::max_element(logits + 4 * before, logits + 4 * (before + 1)) - (logits + 4 * before) == best) {
            ++dropped;
            break;
          }
      }
      for (double& each : load) each /= 192 / 4;
      EXPECT_EQ(health[b].health.load, load);
      EXPECT_DOUBLE_EQ(health[b].health.drop_fraction, dropped / 192);
      EXPECT_GT(dropped, 0);
    }
    EXPECT_EQ(replay(record, policy_of(record, "capacity_factor=0"), *self)[0].health.drop_fraction, 0);
    EXPECT_EQ(replay(record, policy_of(record, "kind=expert_choice"), *self)[0].health.load,
              std::vector<double>(4, 1.0));
    EXPECT_GT(replay(record, policy_of(record, "kind=hash"), *self)[0].health.load_cv, 0);
    for (const char* wrong : {"top_k=9", "experts=3", "kind=nothing", "bias=true"})
      EXPECT_THROW(policy_of(record, wrong), Error) << wrong;
  });
}

}  // namespace
}  // namespace switchyard
