#include "train/upcycle.h"

#include <gtest/gtest.h>

#include "grad_check.h"
#include "ranks.h"
#include "train/restore.h"
#include "train/small_run.h"

namespace switchyard {
namespace {

using test::RunDir;

Config dense_config(const RunDir& dir) {
  Config config = dir.config(1, 1);
  config.run.dir += "-dense";
  config.moe.experts = 0;
  return config;
}

// A dense run of three steps, of each rank its own; its losses of the three that follow.
std::vector<double> train_dense(const Config& config, ProcessGroup& self) {
  Trainer trainer(config, self, ProgressStyle::none);
  for (int i = 0; i < 3; ++i) trainer.step();
  trainer.save();
  std::vector<double> losses;
  for (int i = 0; i < 3; ++i) losses.push_back(trainer.learner().step(i).loss);
  return losses;
}

// How far the down projections of shared experts are from zeros, over all ranks.
double shared_experts_moved(Learner& learner, ProcessGroup& world) {
  Tensor moved = Tensor::zeros({1}, DType::f32, Device{});
  for (const Parameter& p : learner.masters())
    if (p.name.ends_with(".shared_experts.down_proj.weight"))
      for (std::int64_t i = 0; i < p.variable.value().numel(); ++i)
        moved.data<float>()[0] += float(std::abs(test::at(p.variable.value(), i)));
  world.all_reduce(moved, Reduce::sum);
  return test::at(moved, 0);
}

TEST(Upcycle, StartsWhereTheDenseModelWasOnEveryLayout) {
  test::on_ranks({1, 2, 4}, [](ProcessGroup& world) {
    const RunDir dir("upcycle", world);
    const auto self = make_self_group();
    Config dense = dense_config(dir);
    dense.run.dir += text("-", world.rank());
    const double expected = train_dense(dense, *self)[0];

    const int ranks = world.size();
    std::vector<ParallelConfig> layouts{{.data = ranks}};
    if (ranks > 1)
      layouts = {{.data = ranks, .expert = ranks},
                 {.data = ranks / 2, .tensor = 2, .expert_tensor = 2},
                 {.data = ranks, .expert = ranks / 2, .shard_optimizer = true},
                 {.data = ranks / 2, .pipeline = 2}};
    for (const ParallelConfig& parallel : layouts)
      for (const std::int64_t shared : {0, 2}) {
        Config config = dir.config(ranks, 1);
        config.parallel = parallel;
        config.moe.shared_experts = shared;
        config.moe.router.capacity_factor = 0;  // nothing is dropped, and weights add up to 1
        Learner learner(config, world);
        upcycle(find_trained(dense.run.dir, *self), learner, world);
        const StepMetrics first = learner.step(0);
        EXPECT_NEAR(first.loss, expected, 1e-5) << describe(Layout(parallel, ranks)) << ", shared experts " << shared;
        EXPECT_EQ(shared_experts_moved(learner, world) > 0, shared > 0) << "shared experts learn";
        EXPECT_LT(learner.step(1).loss, 1.2 * expected) << "and it trains";
        for (const double load : first.expert_load[0]) EXPECT_LT(load, 0.9) << "the router is its own";
      }
  });
}

std::string complaint(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "none";
}

TEST(Upcycle, RefusesAnotherModelAndExperts) {
  const auto self = make_self_group();
  const RunDir dir("upcycle-refused", *self);
  const Config dense = dense_config(dir), config = dir.config(1, 1);
  train_dense(dense, *self);
  const Found found = find_trained(dense.run.dir, *self);
  const auto with = [&](auto change) {
    Config changed = config;
    change(changed);
    changed = resolved(changed, 1);
    return complaint([&] {
      require_dense_counterpart(found, changed);
      Learner learner(changed, *self);
      upcycle(found, learner, *self);
    });
  };
  EXPECT_EQ(with([](Config&) {}), "none");
  EXPECT_EQ(with([](Config& c) { c.model.init_std = 1; }), "none");
  EXPECT_NE(with([](Config& c) { c.model.n_layers = 1, c.moe.every = 1; }).find("model.n_layers is 2 there and 1 here"),
            std::string::npos);
  EXPECT_NE(with([](Config& c) { c.model.activation = Activation::geglu; }).find("model.activation is swiglu there"),
            std::string::npos);
  for (const Activation activation : {Activation::relu, Activation::geglu})
    EXPECT_NE(with([activation](Config& c) { c.moe.activation = activation; }).find("set it to auto"),
              std::string::npos);
  EXPECT_NE(with([](Config& c) { c.moe.d_ff = 32; }).find("gate_up_proj.weight is f32 (48, 16), wanted f32 (64, 16)"),
            std::string::npos);

  Config with_experts = config;
  Trainer(with_experts, *self, ProgressStyle::none).save();
  EXPECT_NE(complaint([&] {
              require_dense_counterpart(find_trained(with_experts.run.dir, *self), config);
            }).find("has experts already"),
            std::string::npos);
}

}  // namespace
}  // namespace switchyard
