#include "train/trainer.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <csignal>
#include <cstring>
#include <thread>

#include "grad_check.h"
#include "ranks.h"
#include "train/small_run.h"

namespace switchyard {
namespace {

using test::RunDir;

std::vector<double> train(Trainer& trainer, int steps) {
  std::vector<double> losses;
  for (int i = 0; i < steps; ++i) {
    const StepMetrics m = trainer.step();
    losses.insert(losses.end(), {m.loss, m.balance_loss, m.z_loss, m.grad_norm, m.drop_fraction, m.router_entropy});
  }
  return losses;
}

TEST(Resume, TenAndTenStepsAreTwentyBitForBit) {
  test::on_ranks({1, 2}, [](ProcessGroup& world) {
    for (const Precision precision : {Precision::fp32, Precision::bf16}) {
      const RunDir dir("resume", world);
      const Config config = dir.config(world.size(), world.size(), precision);

      std::vector<double> straight;
      {
        Trainer trainer(config, world, ProgressStyle::none);
        straight = train(trainer, 20);
        trainer.save();
      }
      world.barrier();
      if (world.rank() == 0) std::filesystem::rename(dir.path() / "run", dir.path() / "straight");
      world.barrier();

      std::vector<double> halves;
      for (int half = 0; half < 2; ++half) {
        Trainer trainer(config, world, ProgressStyle::none);
        EXPECT_EQ(trainer.steps_done(), 10 * half);
        const std::vector<double> losses = train(trainer, 10);
        halves.insert(halves.end(), losses.begin(), losses.end());
        trainer.save();
      }
      EXPECT_EQ(halves, straight);
      world.barrier();
      const auto a = test::contents(dir.path() / "straight/checkpoints/step-00000020");
      const auto b = test::contents(dir.path() / "run/checkpoints/step-00000020");
      EXPECT_EQ(a.size(), std::size_t(world.size()) + 3);  // ranks' files, checkpoint.h5, manifest, sums
      EXPECT_TRUE(a == b) << "the checkpoints differ";
      world.barrier();
    }
  });
}

// Experts spread over any number of the ranks, dense layers and experts cut over some.
std::vector<ParallelConfig> layouts_of(int ranks) {
  std::vector<ParallelConfig> layouts;
  for (int expert = 1; expert <= ranks; expert *= 2) layouts.push_back({.data = ranks, .expert = expert});
  layouts.push_back({.data = ranks / 2, .tensor = 2});
  layouts.push_back({.data = ranks / 2, .tensor = 2, .expert = ranks / 2, .expert_tensor = 2});
  layouts.push_back({.data = 1, .tensor = ranks, .expert = ranks});
  layouts.push_back({.data = ranks / 2, .pipeline = 2, .expert = ranks / 2});
  return layouts;
}

TEST(Layouts, LossesAgreeOverTwentySteps) {
  test::on_ranks({2, 4}, [](ProcessGroup& world) {
    const RunDir dir("layouts", world);
    const auto self = make_self_group();
    Config alone = dir.config(1, 1);
    alone.run.dir += text("-alone-", world.rank());
    Trainer one(alone, *self, ProgressStyle::none);
    const std::vector<double> expected = train(one, 20);
    for (const ParallelConfig& parallel : layouts_of(world.size())) {
      Config config = dir.config(world.size(), 1);
      config.parallel = parallel;
      SCOPED_TRACE(describe(Layout(parallel, world.size())));
      Trainer trainer(config, world, ProgressStyle::none);
      const std::vector<double> losses = train(trainer, 20);
      // f32 rounding, grown by AdamW over twenty steps: it divides by the root of tiny second moments.
      for (std::size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR(losses[i], expected[i], 2e-3 * (1 + expected[i]));
    }
  });
}

// Gradients leave during the last backward pass alone, in among the collectives of blocks that are computed again; a
// rank that sent them at another place would wait for ever.
TEST(Layouts, LossesAgreeWithMicroBatchesAndRecomputation) {
  test::on_ranks({2, 4}, [](ProcessGroup& world) {
    const RunDir dir("accumulation", world);
    const auto losses = [&](bool apart, const ParallelConfig& parallel, const std::string& name) {
      Config config = dir.config(world.size(), 1);
      config.parallel = parallel;
      config.run.dir += name;
      config.train.global_batch = 16;
      config.train.micro_batch = apart ? 16 / parallel.data / 2 : 16 / parallel.data;
      config.train.recompute = apart ? Recompute::block : Recompute::none;
      Trainer trainer(config, world, ProgressStyle::none);
      return train(trainer, 5);
    };
    const std::vector<double> expected = losses(false, {.data = world.size()}, "-whole");
    int number = 0;
    for (const ParallelConfig& parallel : layouts_of(world.size())) {
      SCOPED_TRACE(describe(Layout(parallel, world.size())));
      const std::vector<double> actual = losses(true, parallel, text("-parts-", ++number));
      // f32 rounding, grown by AdamW over five steps
      for (std::size_t i = 0; i < actual.size(); ++i) EXPECT_NEAR(actual[i], expected[i], 2e-3 * (1 + expected[i]));
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

TEST(Resharding, FourExpertRanksLoadOnOneAndOnTwoByTwo) {
  test::on_ranks({4}, [](ProcessGroup& world) {
    const RunDir dir("reshard", world);
    std::map<std::string, std::vector<float>> saved;  // this rank's slices, by name and origin
    const auto slices = [&](Trainer& trainer) {
      for (const LogicalTensor& t : trainer.learner().tensors())
        saved[text(t.name, " from ", t.origin[0])] = {t.local.data<float>(), t.local.data<float>() + t.local.numel()};
    };
    {
      Trainer four(dir.config(4, 4), world, ProgressStyle::none);
      train(four, 3);
      four.save();
      slices(four);
    }
    world.barrier();

    // on one rank: the slices lie at their place in the whole tensors
    const auto self = make_self_group();
    const auto whole = whole_state(dir.config(1, 1), *self);
    for (const auto& [key, values] : saved) {
      const std::string name = key.substr(0, key.find(" from "));
      const auto rows = std::size_t(std::stoul(key.substr(key.find(" from ") + 6)));
      const std::vector<float>& all = whole.at(name);
      const bool expert = name.find(".experts.") != std::string::npos;
      ASSERT_EQ(all.size(), values.size() * (expert ? 4 : 1)) << name;
      EXPECT_EQ(std::memcmp(all.data() + rows * values.size(), values.data(), values.size() * sizeof(float)), 0) << key;
    }

    // on 2 x 2, saved again from there, and loaded on one
    {
      Config square = dir.config(4, 2);
      Trainer trainer(square, world, ProgressStyle::none);
      EXPECT_EQ(trainer.steps_done(), 3);
      trainer.save();
    }
    world.barrier();
    EXPECT_TRUE(whole_state(dir.config(1, 1), *self) == whole);
    world.barrier();
  });
}

// From layout to layout and back: a checkpoint of each, loaded by the next, is the first one to the bit, whoever wrote
// which piece; and from each training goes on as if nothing had happened.
TEST(Resharding, AChainOfLayoutsKeepsEveryBit) {
  test::on_ranks({4}, [](ProcessGroup& world) {
    const RunDir dir("chain", world);
    const ParallelConfig chain[] = {{.data = 4},
                                    {.data = 4, .expert = 4},
                                    {.data = 2, .tensor = 2, .expert = 2, .expert_tensor = 2},
                                    {.data = 1, .tensor = 4, .expert = 4},
                                    {.data = 1, .tensor = 4, .expert_tensor = 4},
                                    {.data = 2, .pipeline = 2, .expert = 2},
                                    {.data = 1, .pipeline = 2, .tensor = 2, .shard_optimizer = true},
                                    {.data = 2, .tensor = 2, .expert = 4},
                                    {.data = 4}};
    const auto config_of = [&](const ParallelConfig& parallel) {
      Config config = dir.config(4, 1);
      config.parallel = parallel;
      return config;
    };
    const auto self = make_self_group();
    std::map<std::string, std::vector<float>> first;
    std::vector<double> expected;  // of the two steps after the third
    for (const ParallelConfig& parallel : chain) {
      SCOPED_TRACE(describe(Layout(parallel, world.size())));
      {
        Trainer trainer(config_of(parallel), world, ProgressStyle::none);
        if (first.empty()) {
          train(trainer, 3);
        }
        EXPECT_EQ(trainer.steps_done(), 3);
        trainer.save();
        const std::vector<double> losses = train(trainer, 2);
        if (expected.empty()) expected = losses;
        // f32 rounding, grown by AdamW over two steps
        for (std::size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR(losses[i], expected[i], 2e-4 * (1 + expected[i]));
      }
      world.barrier();
      const auto whole = whole_state(dir.config(1, 1), *self);
      if (first.empty()) first = whole;
      EXPECT_TRUE(whole == first) << "a bit was lost";
      world.barrier();
    }
  });
}

// A save in the background holds the state of its own step, whatever the run has done since.
TEST(Saving, InTheBackgroundIsTheSame) {
  test::on_ranks({1, 2}, [](ProcessGroup& world) {
    const RunDir dir("saving", world);
    std::map<std::string, std::string> files[2];
    for (const bool async : {false, true}) {
      Config config = dir.config(world.size(), world.size());
      config.run.dir += async ? "-async" : "-blocking";
      config.train.steps = 5;
      config.checkpoint = {.every = 2, .keep = 9, .async = async};
      EXPECT_EQ(Trainer(config, world, ProgressStyle::none).run(), Outcome::finished);
      world.barrier();
      files[async] = test::contents(checkpoint_dir(config.run.dir));
      // which name the configuration
      std::erase_if(files[async], [](const auto& file) { return !file.first.ends_with(".h5"); });
      world.barrier();
    }
    EXPECT_EQ(files[0].size(), 3 * (std::size_t(world.size()) + 1));
    EXPECT_TRUE(files[0] == files[1]) << "the checkpoints differ";
    world.barrier();
  });
}

// A reader of metrics.jsonl that goes after three steps stands for a disk that is full from then on. Every rank ends
// with the error, and what was being saved is saved.
TEST(Saving, IsFinishedWhereMetricsCannotBeWritten) {
  test::on_ranks({1, 2}, [](ProcessGroup& world) {
    const RunDir dir("full", world);
    Config config = dir.config(world.size(), 1);
    config.train.steps = 1'000'000;
    config.checkpoint = {.every = 1, .keep = 2};
    const std::filesystem::path run = config.run.dir;
    std::thread reader;
    if (world.rank() == 0) {
      std::signal(SIGPIPE, SIG_IGN);
      std::filesystem::create_directories(run);
      const std::string pipe = run / "metrics.jsonl.new";
      ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
      reader = std::thread([pipe] {
        std::ifstream in(pipe);
        std::string line;
        for (int i = 0; i < 3; ++i) std::getline(in, line);
      });
    }
    world.barrier();
    Trainer trainer(config, world, ProgressStyle::none);
    try {
      trainer.run();
      ADD_FAILURE() << "nobody reads metrics.jsonl any more";
    } catch (const Error& error) {
      EXPECT_EQ(error.fault(), Fault::data);
      EXPECT_NE(std::string(error.what()).find("metrics.jsonl"), std::string::npos) << error.what();
    }
    if (reader.joinable()) reader.join();
    world.barrier();
    EXPECT_GE(trainer.steps_done(), 4);
    const std::optional<Found> newest = find_checkpoint(checkpoint_dir(run), world);
    ASSERT_TRUE(newest);
    EXPECT_EQ(newest->state.step, trainer.steps_done() - 1);
    world.barrier();
  });
}

TEST(Guard, NamesTheRankWhoseConfigurationDiffers) {
  test::on_ranks({2, 4}, [](ProcessGroup& world) {
    const RunDir dir("guard", world);
    Config config = dir.config(world.size(), 2);
    if (world.rank() == 1) config.optim.lr = 0.5;
    try {
      Trainer trainer(config, world, ProgressStyle::none);
      FAIL() << "ranks with different learning rates should not train together";
    } catch (const Error& error) {
      EXPECT_EQ(error.fault(), Fault::communication);
      EXPECT_NE(std::string(error.what()).find("configuration"), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("rank 1"), std::string::npos) << error.what();
    }
    world.barrier();
  });
}

TEST(Numeric, ANonFiniteLossStopsBeforeTheUpdate) {
  test::on_ranks({2}, [](ProcessGroup& world) {
    const RunDir dir("numeric", world);
    Trainer trainer(dir.config(2, 2), world, ProgressStyle::none);
    train(trainer, 1);
    Variable& norm = trainer.learner().model().parameters().back().variable;
    norm.value().data<float>()[0] = NAN;
    const Tensor& embedding = trainer.learner().model().parameters().front().variable.value();
    const std::vector<float> before(embedding.data<float>(), embedding.data<float>() + embedding.numel());
    try {
      trainer.step();
      FAIL() << "a loss that is not a number should be an error";
    } catch (const Error& error) {
      EXPECT_EQ(error.fault(), Fault::numeric);
    }
    EXPECT_EQ(trainer.steps_done(), 1);
    EXPECT_TRUE(std::equal(before.begin(), before.end(), embedding.data<float>())) << "the step was not to happen";
    world.barrier();
  });
}

}  // namespace
}  // namespace switchyard
