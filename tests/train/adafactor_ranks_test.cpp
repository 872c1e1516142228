#include "optim/adafactor.h"

#include <gtest/gtest.h>

#include <cmath>

#include "adafactor_definition.h"
#include "dist/consistency.h"
#include "ranks.h"
#include "train/layout_check.h"
#include "train/small_run.h"

// Adafactor in runs: what one rank does is the definition, and what other layouts do is what one rank does.
namespace switchyard {
namespace {

using test::RunDir;

// Its published settings for runs of a few steps, which begin slowly: a run that is thrown about shows no rounding.
OptimConfig adafactor(double beta1 = 0) {
  OptimConfig optim = optim_preset(OptimKind::adafactor);
  optim.beta1 = beta1;
  optim.beta2 = 0.6;  // from the fourth step on
  optim.weight_decay = 0.1;
  optim.schedule.warmup_steps = 5;
  return optim;
}

Config config_of(const RunDir& dir, const ParallelConfig& parallel, int ranks, double beta1 = 0) {
  Config config = dir.config(ranks, 1);
  config.optim = adafactor(beta1);
  config.parallel = parallel;
  config.train.global_batch = 16;
  config.train.micro_batch = 16 / parallel.data / 2;
  return config;
}

// Each kind of parameter cut, spread, shared out and held once somewhere; words that do not divide evenly.
std::vector<ParallelConfig> layouts_of(int ranks) {
  if (ranks == 1) return {{.data = 1}, {.data = 1, .shard_optimizer = true}};
  std::vector<ParallelConfig> layouts{{.data = ranks},
                                      {.data = ranks, .expert = 2},
                                      {.data = ranks / 2, .tensor = 2},
                                      {.data = ranks / 2, .tensor = 2, .expert_tensor = 2},
                                      {.data = ranks / 2, .pipeline = 2}};
  if (ranks == 4) {
    layouts.push_back({.data = 2, .tensor = 2, .expert = 2, .expert_tensor = 2});
    layouts.push_back({.data = 1, .tensor = 4, .expert_tensor = 4});
    layouts.push_back({.data = 1, .pipeline = 2, .tensor = 2, .expert = 2});
  }
  for (std::size_t i = layouts.size(); i-- > 0;) {
    layouts.push_back(layouts[i]);
    layouts.back().shard_optimizer = true;
  }
  return layouts;
}

// A parameter's matrices, one by one, in f64.
std::vector<double> values(const Tensor& x, std::int64_t begin, std::int64_t count) {
  return {x.data<float>() + begin, x.data<float>() + begin + count};
}
std::vector<test::AdafactorMatrix> matrices_of(const Parameter& p) {
  const Shape& shape = p.global_shape;
  const bool is_vector = shape.rank() == 1;
  const std::int64_t rows = is_vector ? 1 : shape[-2], columns = shape[-1], count = shape.numel() / (rows * columns);
  std::vector<test::AdafactorMatrix> matrices;
  for (std::int64_t i = 0; i < count; ++i)
    matrices.push_back({.rows = rows,
                        .columns = columns,
                        .p = values(p.variable.value(), i * rows * columns, rows * columns),
                        .is_vector = is_vector});
  return matrices;
}

// Of every parameter of the model, from the gradients that the run itself has. Each f32 step rounds what it changes,
// and the parameter, by some 2^-24.
TEST(AdafactorRuns, OneRankDoesWhatTheDefinitionSays) {
  const auto self = make_self_group();
  const RunDir dir("adafactor-definition", *self);
  for (const double beta1 : {0.0, 0.9}) {
    const Config config = config_of(dir, {.data = 1}, 1, beta1);
    Learner learner(config, *self);
    std::map<std::string, std::vector<test::AdafactorMatrix>> expected;
    for (const Parameter& p : learner.masters()) expected[p.name] = matrices_of(p);
    int clipped = 0;
    for (std::int64_t step = 0; step < 4; ++step) {
      const StepSums sums = learner.backward(step);
      const AdafactorStep s{.lr = static_cast<float>(config.optim.lr * double(std::min<std::int64_t>(step + 1, 5)) / 5),
                            .beta1 = static_cast<float>(beta1),
                            .beta2 = static_cast<float>(std::min(0.6, 1 - std::pow(step + 1, -0.8))),
                            .clip = 1,
                            .scale_floor = 1e-3f};
      for (const Parameter& p : learner.masters()) {
        auto& matrices = expected.at(p.name);
        for (std::size_t i = 0; i < matrices.size(); ++i) {
          const auto n = std::int64_t(matrices[i].p.size());
          matrices[i].step(values(p.variable.grad(), std::int64_t(i) * n, n), s, p.decay == Decay::yes ? 0.1 : 0);
          clipped += matrices[i].rms_of_update > 1;
        }
      }
      learner.update(step, sums);
      for (const Parameter& p : learner.masters()) {
        std::int64_t e = 0;
        for (const test::AdafactorMatrix& matrix : expected.at(p.name))
          for (const double x : matrix.p)
            ASSERT_NEAR(double(p.variable.value().data<float>()[e++]), x, 1e-6 * std::max(0.1, std::abs(x)))
                << p.name << ", element " << e - 1 << ", step " << step;
      }
    }
    EXPECT_GT(clipped, 0);
  }
}

TEST(AdafactorRuns, EveryLayoutIsWithinRounding) {
  test::on_ranks({1, 2, 4}, [](ProcessGroup& world) {
    const RunDir dir("adafactor-layouts", world);
    const auto self = make_self_group();
    const Config alone = config_of(dir, {.data = 1}, 1, 0.5);
    const LayoutReference reference = train_alone(alone, 4, 2);
    Learner one(alone, *self);
    for (int step = 0; step < 4; ++step) one.step(step);
    std::map<std::string, Tensor> whole;
    for (const LogicalTensor& t : one.tensors()) whole[t.name] = t.local;
    for (const ParallelConfig& parallel : layouts_of(world.size())) {
      SCOPED_TRACE(text(describe(Layout(parallel, world.size())), parallel.shard_optimizer ? ", shared out" : ""));
      const LayoutDifference d = compare_layout(alone, parallel, 2, reference, world);
      // 1e-6 of a step, of which many rows and columns share the rounding of a factor; a few steps add it up
      EXPECT_TRUE(d.is_rounding() && d.parameters < 5e-5)
          << "loss " << d.loss << ", gradient " << d.gradient << " of " << d.worst << ", parameters " << d.parameters
          << ", routing " << d.routing;

      // and so is everything that a checkpoint holds: of moments, whatever their size
      Learner learner(config_of(dir, parallel, world.size(), 0.5), world);
      for (int step = 0; step < 4; ++step) learner.step(step);
      require_same_replicas(learner.model().parameters(), 4, learner.mesh());
      for (const LogicalTensor& t : learner.tensors()) {
        const float *mine = t.local.data<float>(), *all = whole.at(t.name).data<float>();
        double difference = 0, size = 0;
        for_each_index({t.origin, t.local.shape()}, t.global_shape, [&](std::int64_t i) {
          difference += std::pow(double(*mine++) - double(all[i]), 2);
          size += std::pow(double(all[i]), 2);
        });
        EXPECT_LE(std::sqrt(difference), 5e-5 * std::sqrt(size)) << t.name;
      }
    }
  });
}

std::vector<double> train(Trainer& trainer, int steps) {
  std::vector<double> numbers;
  for (int i = 0; i < steps; ++i) {
    const StepMetrics m = trainer.step();
    numbers.insert(numbers.end(), {m.loss, m.balance_loss, m.z_loss, m.grad_norm});
  }
  return numbers;
}

TEST(AdafactorRuns, ResumesBitForBit) {
  test::on_ranks({1, 2, 4}, [](ProcessGroup& world) {
    for (const ParallelConfig& parallel : layouts_of(world.size())) {
      if (parallel.expert == 1 || (parallel.tensor == 1 && world.size() == 4)) continue;
      SCOPED_TRACE(text(describe(Layout(parallel, world.size())), parallel.shard_optimizer ? ", shared out" : ""));
      const RunDir dir("adafactor-resume", world);
      for (const double beta1 : {0.0, 0.9}) {
        Config config = config_of(dir, parallel, world.size(), beta1);
        config.run.precision = Precision::bf16;
        config.run.dir += text("-", beta1 > 0);
        Trainer trainer(config, world, ProgressStyle::none);
        train(trainer, 3);
        trainer.save();
        const std::vector<double> straight = train(trainer, 3);
        Trainer again(config, world, ProgressStyle::none);
        EXPECT_EQ(again.steps_done(), 3);
        EXPECT_EQ(train(again, 3), straight);
        world.barrier();
      }
    }
  });
}

// Every parameter and state of the run, whole, by name.
std::map<std::string, std::vector<float>> whole_state(const Config& config, ProcessGroup& self) {
  Trainer trainer(config, self, ProgressStyle::none);
  std::map<std::string, std::vector<float>> tensors;
  for (const LogicalTensor& t : trainer.learner().tensors())
    tensors[t.name] = {t.local.data<float>(), t.local.data<float>() + t.local.numel()};
  return tensors;
}

TEST(AdafactorRuns, AChainOfLayoutsKeepsEveryBit) {
  test::on_ranks({4}, [](ProcessGroup& world) {
    const RunDir dir("adafactor-chain", world);
    const auto self = make_self_group();
    std::map<std::string, std::vector<float>> first;
    std::vector<double> expected;  // of the step after the third
    for (const ParallelConfig& parallel : layouts_of(4)) {
      SCOPED_TRACE(text(describe(Layout(parallel, world.size())), parallel.shard_optimizer ? ", shared out" : ""));
      {
        Trainer trainer(config_of(dir, parallel, 4, 0.5), world, ProgressStyle::none);
        if (first.empty()) train(trainer, 3);
        EXPECT_EQ(trainer.steps_done(), 3);
        trainer.save();
        const std::vector<double> losses = train(trainer, 1);
        if (expected.empty()) expected = losses;
        for (std::size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR(losses[i], expected[i], 1e-4 * (1 + expected[i]));
      }
      world.barrier();
      const auto whole = whole_state(config_of(dir, {.data = 1}, 1, 0.5), *self);
      if (first.empty()) first = whole;
      EXPECT_TRUE(whole == first) << "a bit was lost";
      world.barrier();
    }
    EXPECT_EQ(first.at("optimizer.exp_avg_sq_row.model.layers.1.mlp.experts.down_proj").size(), 4u * 16);
    EXPECT_TRUE(first.contains("optimizer.exp_avg_sq_col.model.layers.1.mlp.experts.down_proj"));
    EXPECT_EQ(first.at("optimizer.exp_avg_sq.model.norm.weight").size(), 16u);
  });
}

TEST(AdafactorRuns, RefusesWhatAnotherOptimizerHasKept) {
  test::on_ranks({2}, [](ProcessGroup& world) {
    const RunDir dir("adafactor-other", world);
    {
      Trainer trainer(config_of(dir, {.data = 2}, 2), world, ProgressStyle::none);
      train(trainer, 1);
      trainer.save();
    }
    for (const OptimConfig& other : {OptimConfig{}, adafactor(0.5)}) {
      Config config = config_of(dir, {.data = 2}, 2);
      config.optim = other;
      try {
        Trainer trainer(config, world, ProgressStyle::none);
        FAIL() << "another optimizer's states should be refused";
      } catch (const Error& error) {
        EXPECT_EQ(error.fault(), Fault::usage);
        EXPECT_NE(std::string(error.what()).find("was trained with adafactor without a first moment"),
                  std::string::npos)
            << error.what();
      }
    }
    world.barrier();
  });
}

TEST(AdafactorRuns, ANonFiniteLossStopsBeforeTheUpdate) {
  const auto self = make_self_group();
  const RunDir dir("adafactor-numeric", *self);
  Trainer trainer(config_of(dir, {.data = 1}, 1, 0.5), *self, ProgressStyle::none);
  train(trainer, 1);
  trainer.learner().model().parameters().back().variable.value().data<float>()[0] = NAN;
  const auto state = [&] {
    std::vector<float> all;
    for (const LogicalTensor& t : trainer.learner().tensors())
      for (std::int64_t i = 0; i < t.local.numel(); ++i)
        if (!std::isnan(t.local.data<float>()[i])) all.push_back(t.local.data<float>()[i]);
    return all;
  };
  const std::vector<float> before = state();
  EXPECT_THROW(trainer.step(), Error);
  EXPECT_TRUE(state() == before) << "the step was not to happen";
}

}  // namespace
}  // namespace switchyard
