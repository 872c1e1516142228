#include <gtest/gtest.h>

#include <algorithm>

#include "ranks.h"
#include "train/small_run.h"

namespace switchyard {
namespace {

std::string failure_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::communication);
    return error.what();
  }
  return "none";
}

// Turns the lowest bit of the first element on one rank.
void disturb(Trainer& trainer, const std::string& name, bool is_me) {
  for (Parameter& p : trainer.learner().model().parameters())
    if (is_me && p.name == name) reinterpret_cast<std::uint32_t*>(p.variable.value().data<float>())[0] ^= 1;
}

TEST(Guard, ACopyThatDiffersEndsTheRunBeforeTheFirstStep) {
  test::on_ranks({4}, [](ProcessGroup& world) {
    const test::RunDir dir("replicas", world);
    Config config = dir.config(4, 2);
    config.train.steps = 2;
    Trainer trainer(config, world, ProgressStyle::none);
    disturb(trainer, "model.norm.weight", world.rank() == 3);
    EXPECT_EQ(failure_of([&] { trainer.run(); }),
              "after step 0 copies of the same parameter have not the same bits:\n"
              "  model.norm.weight: rank 3 differs from ranks 0, 1 and 2");
    EXPECT_EQ(trainer.steps_done(), 0);
    world.barrier();
  });
}

TEST(Guard, WhatAnOptimizerKeepsOfWholeMatricesIsComparedToo) {
  test::on_ranks({4}, [](ProcessGroup& world) {
    const test::RunDir dir("means", world);
    Config config = dir.config(4, 1);
    config.parallel = {.data = 2, .tensor = 2};
    config.optim = optim_preset(OptimKind::adafactor);
    config.train.steps = 2;
    Trainer trainer(config, world, ProgressStyle::none);
    std::vector<OptimizerState> states = trainer.learner().optimizer().states();
    OptimizerState& mean = *std::ranges::find(states, Replicas::data, &OptimizerState::replicas);
    if (world.rank() == 3) mean.value.data<float>()[0] = 1;
    EXPECT_EQ(failure_of([&] { trainer.run(); }),
              text("after step 0 copies of the same parameter have not the same bits:\n  ", mean.name,
                   ": rank 3 differs from ranks 0, 1 and 2"));
    world.barrier();
  });
}

// An optimizer that counts otherwise on one rank makes its copies drift from the first step on.
TEST(Guard, CopiesAreComparedAsOftenAsAskedFor) {
  test::on_ranks({2}, [](ProcessGroup& world) {
    const test::RunDir dir("often", world);
    for (const std::int64_t every : {0, 2}) {
      Config config = dir.config(2, 1);
      config.run.dir += std::to_string(every);
      config.train.steps = 3;
      config.parallel.check_every = every;
      Trainer trainer(config, world, ProgressStyle::none);
      if (world.rank() == 1) trainer.learner().optimizer().set_steps(7);
      const std::string what = failure_of([&] { trainer.run(); });
      if (every == 0) {
        EXPECT_EQ(what, "none");
      } else {
        EXPECT_EQ(what.find("after step 2 copies"), 0u) << what;
        EXPECT_NE(what.find(": rank 1 differs from rank 0"), std::string::npos) << what;
      }
    }
    world.barrier();
  });
}

TEST(Guard, CheckedCollectivesChangeNothing) {
  test::on_ranks({2, 4}, [](ProcessGroup& world) {
    const test::RunDir dir("checked", world);
    double losses[2];
    for (const bool checked : {false, true}) {
      Config config = dir.config(world.size() / 2, 2);
      config.parallel.tensor = 2;
      config.run.dir += checked ? "checked" : "plain";
      config.debug.collectives = checked;
      Trainer trainer(config, world, ProgressStyle::none);
      trainer.step();
      losses[checked] = trainer.step().loss;
    }
    EXPECT_EQ(losses[0], losses[1]);
    world.barrier();
  });
}

}  // namespace
}  // namespace switchyard
