#include <gtest/gtest.h>

#include <map>

#include "dist/traffic.h"
#include "ranks.h"
#include "train/layout_search.h"
#include "train/learner.h"
#include "train/small_run.h"

namespace switchyard {
namespace {

struct Case {
  int ranks;
  ParallelConfig parallel;
  std::int64_t micro_batch;
  Recompute recompute = Recompute::none;
  Precision precision = Precision::fp32;
};
const Case cases[] = {
    {1, {.data = 1}, 4, Recompute::block},
    {2, {.data = 2, .expert = 2}, 2, Recompute::attention, Precision::bf16},
    {2, {.data = 1, .pipeline = 2}, 2},
    {2, {.data = 1, .tensor = 2, .expert_tensor = 2, .shard_optimizer = true}, 8, Recompute::ffn, Precision::bf16},
    {4, {.data = 4, .expert = 2, .shard_optimizer = true}, 1, Recompute::block},
    {4, {.data = 2, .tensor = 2, .expert = 2, .expert_tensor = 2}, 2},
    {4, {.data = 1, .tensor = 4, .expert = 2}, 4, Recompute::ffn},
    {4, {.data = 2, .pipeline = 2, .expert = 2, .shard_optimizer = true}, 1, Recompute::block, Precision::bf16},
    {4, {.data = 1, .pipeline = 2, .tensor = 2, .expert = 2}, 2, Recompute::attention},
};

// Two dense and two MoE blocks, words and heads that do not divide evenly, routing groups cut over four ranks.
Config config_of(const Case& each, const test::RunDir& dir, const RouterConfig& router) {
  Config c = dir.config(each.ranks, 1, each.precision);
  c.model.n_layers = 4;
  c.model.vocab_size = 259;
  c.model.positions = int(router.kind) % 3 == 0 ? Positions::relative_bias : Positions::rope;
  c.moe.router = router;
  c.moe.router.group_size = 4;
  c.moe.router.device_capacity = 0;
  if (router.capacity_factor == 0) c.moe.router.capacity_factor = 1;  // so that rows can be padded
  c.moe.shared_experts = router.kind == RouterKind::deepseek_v3 ? 1 : 0;
  c.moe.activation = int(router.kind) % 2 == 0 ? Activation::relu : Activation::swiglu;
  c.moe.expert_dropout = router.kind == RouterKind::switch_top_1 ? 0.2 : 0;
  c.moe.dispatch = Dispatch::padded;
  c.moe.overlap = Overlap::on;
  if (each.micro_batch != 1) c.moe.router.balance_scope = BalanceScope::micro_batch;
  if (int(router.kind) % 2) c.optim = optim_preset(OptimKind::adafactor);
  c.parallel = each.parallel;
  c.train.micro_batch = each.micro_batch;
  c.train.recompute = each.recompute;
  return resolved(c, each.ranks);
}

using Bytes = std::map<std::string, std::int64_t>;  // "tensor all_gather" -> bytes that this rank sent

TEST(Plan, BytesOfEveryRankAreThoseThatItsGroupsCount) {
  for (const int ranks : {1, 2, 4})
    test::on_ranks({ranks}, [&](ProcessGroup& world) {
      const test::RunDir dir("plan-traffic", world);
      for (const Case& each : cases) {
        if (each.ranks != world.size()) continue;
        for (const RouterConfig& router : test::small_routers()) {
          const Config config = config_of(each, dir, router);
          Bytes planned, counted;
          for (const PlannedTraffic& t : plan_traffic(config, world.rank()))
            if (t.bytes > 0) planned[text(name_of(t.group), ' ', name_of(t.collective))] += t.bytes;
          Learner learner(config, world);
          const std::vector<GroupTraffic> before = traffic_of(learner.mesh());
          learner.step(0);
          for (const GroupTraffic& t : traffic_since(before, learner.mesh()))
            if (t.traffic.bytes > 0) counted[text(t.group, ' ', name_of(t.collective))] += t.traffic.bytes;
          EXPECT_EQ(planned, counted) << describe(Layout(config.parallel, ranks)) << ", rank " << world.rank()
                                      << ", router " << int(router.kind);
        }
      }
    });
}

TEST(Plan, ParametersAreThoseOfTheModel) {
  for (const int ranks : {1, 2, 4})
    test::on_ranks({ranks}, [&](ProcessGroup& world) {
      const test::RunDir dir("plan-held", world);
      for (const Case& each : cases) {
        if (each.ranks != world.size()) continue;
        for (const RouterConfig& router : test::small_routers()) {
          const bool tied = int(router.kind) % 2 == 0;
          Config config = config_of(each, dir, router);
          config.model.tied_embeddings = tied;
          Learner learner(config, world);
          const std::vector<Stage> stages =
              cut_into_stages(config.model, config.moe, config.train.seq_len, config.parallel.pipeline);
          const std::vector<HeldParameter> held =
              held_parameters(config.model, config.moe, config.parallel,
                              stages[static_cast<std::size_t>(learner.mesh().stage())], learner.mesh().tensor->rank());
          const Parameters& parameters = learner.model().parameters();
          ASSERT_EQ(held.size(), parameters.size());
          for (std::size_t i = 0; i < held.size(); ++i) {
            const Shape &shape = held[i].shape, &global = parameters[i].global_shape;
            EXPECT_EQ(shape, parameters[i].variable.shape()) << parameters[i].name;
            EXPECT_EQ(held[i].matrices, global.rank() == 3 ? global.with(0, shape[0]) : global) << parameters[i].name;
            EXPECT_EQ(held[i].replicas, parameters[i].replicas) << parameters[i].name;
            EXPECT_EQ(held[i].reads, parameters[i].reads) << parameters[i].name;
          }
        }
      }
      world.barrier();  // no rank opens the tokens any more
    });
}

}  // namespace
}  // namespace switchyard
