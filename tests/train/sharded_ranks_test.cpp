#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "ranks.h"
#include "train/small_run.h"

// Masters and optimizer states shared out over the ranks that hold a parameter (parallel.shard_optimizer), beside the
// same run without.
namespace switchyard {
namespace {

using test::RunDir;

// Samples over data ranks, dense layers cut, experts spread and cut; each kind of parameter held once somewhere.
std::vector<ParallelConfig> layouts_of(int ranks) {
  if (ranks == 1) return {{.data = 1}};
  std::vector<ParallelConfig> layouts{{.data = ranks}, {.data = ranks, .expert = 2}, {.data = ranks / 2, .tensor = 2}};
  layouts.push_back({.data = ranks / 2, .tensor = 2, .expert_tensor = 2});
  layouts.push_back({.data = ranks / 2, .pipeline = 2});
  if (ranks == 4) layouts.push_back({.data = 2, .tensor = 2, .expert = 2, .expert_tensor = 2});
  return layouts;
}

// Two micro-batches a step, and gradients that are clipped.
Config config_of(const RunDir& dir, ParallelConfig parallel, int ranks, Precision precision, bool sharded) {
  Config config = dir.config(ranks, 1, precision);
  config.parallel = parallel;
  config.parallel.shard_optimizer = sharded;
  config.train.global_batch = 16;
  config.train.micro_batch = 16 / parallel.data / 2;
  config.optim.clip = 0.1;
  return config;
}

std::vector<double> train(Learner& learner, std::int64_t begin, std::int64_t end) {
  std::vector<double> numbers;
  for (std::int64_t step = begin; step < end; ++step) {
    const StepMetrics m = learner.step(step);
    EXPECT_GT(m.grad_norm, 0.1) << "nothing was clipped";
    numbers.insert(numbers.end(), {m.loss, m.balance_loss, m.z_loss, m.grad_norm});
  }
  return numbers;
}

std::vector<double> train(Trainer& trainer, int steps) {
  std::vector<double> numbers;
  for (int i = 0; i < steps; ++i) {
    const StepMetrics m = trainer.step();
    numbers.insert(numbers.end(), {m.loss, m.balance_loss, m.z_loss, m.grad_norm});
  }
  return numbers;
}

// What the rank holds of each tensor, at its place in the whole; NaN is what it does not hold.
std::map<std::string, std::vector<float>> held(const std::vector<LogicalTensor>& tensors) {
  std::map<std::string, std::vector<float>> whole;
  for (const LogicalTensor& t : tensors) {
    auto& values = whole.try_emplace(t.name, std::size_t(t.global_shape.numel()), NAN).first->second;
    const float* x = t.local.data<float>();
    for_each_index({t.origin, t.local.shape()}, t.global_shape, [&](std::int64_t i) { values[std::size_t(i)] = *x++; });
  }
  return whole;
}

void expect_within(const std::vector<LogicalTensor>& part, const std::vector<LogicalTensor>& all) {
  const auto whole = held(all);
  for (const auto& [name, mine] : held(part)) {
    const std::vector<float>& expected = whole.at(name);
    for (std::size_t i = 0; i < mine.size(); ++i) {
      if (std::isnan(mine[i])) continue;
      ASSERT_EQ(mine[i], expected[i]) << name << ", element " << i;
    }
  }
}

// Parameters, moments, and what forward reads, after the same steps.
void expect_same_bits(Learner& sharded, Learner& replicated) {
  expect_within(sharded.tensors(), replicated.tensors());
  for (std::size_t p = 0; p < replicated.model().parameters().size(); ++p) {
    const Tensor& read = sharded.model().parameters()[p].variable.value();
    const Tensor expected = cast(replicated.model().parameters()[p].variable.value(), read.dtype());
    ASSERT_EQ(std::memcmp(read.bytes(), expected.bytes(), read.size_in_bytes()), 0)
        << replicated.model().parameters()[p].name;
  }
}

TEST(ShardedOptimizer, TrainsToTheSameBitsOnEveryLayout) {
  test::on_ranks({1, 2, 4}, [](ProcessGroup& world) {
    const RunDir dir("sharded", world);
    for (const Precision precision : {Precision::fp32, Precision::bf16})
      for (const ParallelConfig& parallel : layouts_of(world.size())) {
        SCOPED_TRACE(
            text(describe(Layout(parallel, world.size())), precision == Precision::fp32 ? ", fp32" : ", bf16"));
        Learner sharded(config_of(dir, parallel, world.size(), precision, true), world);
        Learner replicated(config_of(dir, parallel, world.size(), precision, false), world);
        EXPECT_EQ(train(sharded, 0, 4), train(replicated, 0, 4));
        expect_same_bits(sharded, replicated);
      }
  });
}

// Three steps on one kind of optimizer, saved, and three more on either, here or on one rank.
TEST(ShardedOptimizer, ResumesFromEitherKindBitForBit) {
  test::on_ranks({2, 4}, [](ProcessGroup& world) {
    const ParallelConfig parallel{.data = world.size() / 2, .tensor = 2, .expert = world.size() / 2};
    for (const bool saved_sharded : {true, false}) {
      const RunDir dir("sharded-resume", world);
      std::vector<double> straight;
      const auto config = [&](bool sharded) {
        return config_of(dir, parallel, world.size(), Precision::bf16, sharded);
      };
      {
        Trainer trainer(config(saved_sharded), world, ProgressStyle::none);
        train(trainer, 3);
        trainer.save();
        straight = train(trainer, 3);
      }
      for (const bool sharded : {true, false}) {
        Trainer trainer(config(sharded), world, ProgressStyle::none);
        EXPECT_EQ(trainer.steps_done(), 3);
        EXPECT_EQ(train(trainer, 3), straight) << "saved sharded: " << saved_sharded << ", resumed: " << sharded;
      }
      {
        Trainer sharded(config(true), world, ProgressStyle::none),
            replicated(config(false), world, ProgressStyle::none);
        expect_same_bits(sharded.learner(), replicated.learner());
        const auto self = make_self_group();
        Trainer one(config_of(dir, {.data = 1}, 1, Precision::bf16, false), *self, ProgressStyle::none);
        expect_within(sharded.learner().tensors(), one.learner().tensors());
      }
      world.barrier();
    }
  });
}

// The same steps give the same tensors, so that what one rank reads from either checkpoint is the same.
TEST(ShardedOptimizer, SavesTheSameTensors) {
  test::on_ranks({4}, [](ProcessGroup& world) {
    std::vector<std::map<std::string, std::vector<float>>> read;
    for (const bool sharded : {true, false}) {
      const RunDir dir("sharded-save", world);
      const ParallelConfig parallel{.data = 2, .tensor = 2, .expert = 2};
      {
        Trainer trainer(config_of(dir, parallel, 4, Precision::fp32, sharded), world, ProgressStyle::none);
        train(trainer, 2);
        trainer.save();
      }
      world.barrier();
      const auto self = make_self_group();
      Trainer one(config_of(dir, {.data = 1}, 1, Precision::fp32, false), *self, ProgressStyle::none);
      EXPECT_EQ(one.steps_done(), 2);
      read.push_back(held(one.learner().tensors()));
      world.barrier();
    }
    EXPECT_TRUE(read[0] == read[1]);
  });
}

}  // namespace
}  // namespace switchyard
