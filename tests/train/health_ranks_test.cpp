#include "train/health.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "ranks.h"
#include "tensor/profile.h"
#include "train/small_run.h"

namespace switchyard {
namespace {

using test::RunDir;

std::size_t reading(const std::string& name) {
  const std::vector<std::string> names = AlarmConfig::reading_names();
  return static_cast<std::size_t>(std::ranges::find(names, name) - names.begin());
}

// Every number of every reading of so many steps.
std::vector<double> read(Trainer& trainer, int steps) {
  std::vector<double> numbers;
  for (int i = 0; i < steps; ++i)
    for (const auto& [layer, health] : trainer.step().router) {
      numbers.push_back(static_cast<double>(layer));
      numbers.insert(numbers.end(), health.load.begin(), health.load.end());
      numbers.insert(numbers.end(), health.dropped.begin(), health.dropped.end());
      for (const Reading& each : readings()) numbers.push_back(health.*each.value);
    }
  return numbers;
}

TEST(RouterHealth, IsTheSameOnEveryLayout) {
  test::on_ranks({2, 4}, [](ProcessGroup& world) {
    const RunDir dir("health", world);
    const auto self = make_self_group();
    const auto config_of = [&](int ranks) {
      Config config = dir.config(ranks, 1);
      config.model.n_layers = 4;  // two MoE blocks, one a stage
      config.health.every = 1;
      return config;
    };
    Config alone = config_of(1);
    alone.run.dir += text("-alone-", world.rank());
    Trainer one(alone, *self, ProgressStyle::none);
    const std::vector<double> expected = read(one, 3);
    ASSERT_EQ(expected.size(), 3 * 2 * (1 + 4 + 2 + readings().size()));

    const int ranks = world.size();
    for (const ParallelConfig& parallel :
         {ParallelConfig{.data = ranks}, ParallelConfig{.data = ranks, .expert = ranks},
          ParallelConfig{.data = ranks / 2, .tensor = 2, .expert = 2},
          ParallelConfig{.data = ranks / 2, .tensor = 2, .expert_tensor = 2},
          ParallelConfig{.data = ranks / 2, .pipeline = 2}, ParallelConfig{.data = ranks, .shard_optimizer = true}}) {
      SCOPED_TRACE(describe(Layout(parallel, ranks)));
      Config config = config_of(ranks);
      config.parallel = parallel;
      config.train.micro_batch = 8 / parallel.data / 2;
      config.train.recompute = parallel.tensor > 1 ? Recompute::block : Recompute::none;
      Trainer trainer(config, world, ProgressStyle::none);
      const std::vector<double> actual = read(trainer, 3);
      ASSERT_EQ(actual.size(), expected.size());
      // f32 rounding, grown by AdamW over two steps; no token's choice hangs on that
      for (std::size_t i = 0; i < actual.size(); ++i) {
        if (std::isnan(expected[i]))
          EXPECT_TRUE(std::isnan(actual[i]));
        else
          EXPECT_NEAR(actual[i], expected[i], 2e-4 * (1 + expected[i])) << "number " << i;
      }
    }
  });
}

TEST(RouterHealth, IsReadEveryNStepsAndChangesNothing) {
  test::on_ranks({1}, [](ProcessGroup& world) {
    const RunDir dir("health-every", world);
    std::vector<double> losses[2];
    for (const bool reads : {false, true}) {
      Config config = dir.config(1, 1);
      config.run.dir += reads ? "-read" : "-unread";
      config.health.every = reads ? 3 : 0;
      Trainer trainer(config, world, ProgressStyle::none);
      for (int step = 1; step <= 7; ++step) {
        const StepMetrics m = trainer.step();
        losses[reads].push_back(m.grad_norm);
        EXPECT_EQ(m.router.size(), reads && step % 3 == 0 ? 1u : 0u);
        if (!m.router.empty()) {
          EXPECT_EQ(m.router[0].layer, 1);
          EXPECT_NEAR(m.router[0].health.drop_fraction, m.drop_fraction, 1e-6);
          EXPECT_NEAR(m.router[0].health.mean_entropy, m.router_entropy, 1e-6);
          EXPECT_NEAR(m.router[0].health.balance_term, 0.01 * m.balance_loss, 1e-6);
          EXPECT_EQ(std::isnan(m.router[0].health.agreement), step == 3);
          const auto json = nlohmann::json::parse(to_json(m))["router"][0];
          EXPECT_EQ(json["layer"], 1);
          EXPECT_EQ(json["load"].size(), 4u);
          EXPECT_EQ(json["dropped"].size(), 2u);
          EXPECT_EQ(json.contains("agreement"), step != 3);
          EXPECT_EQ(json["load_max"], m.router[0].health.load_max);
        }
      }
    }
    EXPECT_EQ(losses[0], losses[1]);
  });
}

// A forward that runs again has been looked at.
TEST(RouterHealth, IsReadOnceWhateverIsComputedAgain) {
  test::on_ranks({1}, [](ProcessGroup& world) {
    const RunDir dir("once", world);
    for (const Recompute recompute : {Recompute::none, Recompute::block, Recompute::ffn}) {
      Config config = dir.config(1, 1);
      config.health.every = 1;
      config.train.micro_batch = 4;  // two of them
      config.train.recompute = recompute;
      Trainer trainer(config, world, ProgressStyle::none);
      const Profile profile;
      EXPECT_EQ(trainer.step().router.size(), 1u);
      const std::vector<KernelTime> times = profile.times();
      const auto row = std::ranges::find(times, std::string("observe_routing"), &KernelTime::name);
      ASSERT_NE(row, times.end());
      EXPECT_EQ(row->calls, 2);
    }
  });
}

// What each loss adds alone, they add together; an alarm sees it.
TEST(RouterHealth, TheBalanceTermIsOfEveryLossButZ) {
  test::on_ranks({1, 2}, [](ProcessGroup& world) {
    const RunDir dir("term", world);
    for (const RouterKind kind : {RouterKind::noisy_top_k, RouterKind::deepseek_v2}) {
      SCOPED_TRACE(text("kind ", static_cast<int>(kind)));
      Config config = dir.config(world.size(), 1);
      config.moe.router = test::small_routers()[std::size_t(kind)];
      config = resolved(config, world.size());
      config.health = {.every = 1, .alarms = {{.watch = reading("balance_term"), .above = 0.0, .readings = 1}}};
      const auto term = [&] {
        const StepMetrics m = Trainer(config, world, ProgressStyle::none).step();
        EXPECT_EQ(m.alarms.size(), 1u);
        return m.router[0].health.balance_term;
      };
      const double whole = term();
      RouterConfig& router = config.moe.router;
      const RouterConfig all = router;
      double sum = 0;
      for (double RouterConfig::*loss :
           {&RouterConfig::balance_loss, &RouterConfig::device_loss, &RouterConfig::communication_loss,
            &RouterConfig::importance_loss, &RouterConfig::load_loss}) {
        if (all.*loss == 0) continue;
        router.balance_loss = router.device_loss = router.communication_loss = 0;
        router.importance_loss = router.load_loss = 0;
        router.*loss = all.*loss;
        sum += term();
      }
      EXPECT_NEAR(sum, whole, 1e-6 * (1 + whole)) << "f32 sums of a few numbers of size 1";
    }
    world.barrier();
  });
}

// With weights of zero all logits are equal, and every token goes to experts 0 and 1 of the four: a collapse that no
// gradient mends, for the learning rate is 0.
Config collapsed(const RunDir& dir, const AlarmConfig& alarm, int ranks = 1) {
  Config config = dir.config(ranks, 1);
  config.optim.lr = 0;
  config.health = {.every = 1, .alarms = {alarm}};
  return config;
}
void collapse(Trainer& trainer) {
  for (Parameter& p : trainer.learner().masters())
    if (p.name.ends_with(".mlp.gate.weight")) {
      std::fill_n(p.variable.value().data<float>(), p.variable.value().numel(), 0.0f);
      p.variable.refresh_weight();
    }
}

TEST(Collapse, IsCaughtAndNamedByTheDefaultAlarms) {
  test::on_ranks({1}, [](ProcessGroup& world) {
    const RunDir dir("collapse", world);
    Config config = collapsed(dir, {});
    config.health.alarms = default_alarms();
    Trainer trainer(config, world, ProgressStyle::none);
    collapse(trainer);
    std::vector<std::string> said;
    for (int step = 1; step <= 3; ++step)
      for (const Alarm& alarm : trainer.step().alarms) said.push_back(text(step, ": ", to_text(alarm)));
    EXPECT_EQ(said, (std::vector<std::string>{"3: block 1: dead_experts = 0.5, above 0.25 in 3 readings in a row"}));
  });
}

// Sixteen experts, of which tokens meet one: with equal logits it is always the first; with large ones of the first two
// experts, of opposite signs, one of these.
TEST(Collapse, EveryDefaultAlarmFiresInItsTrouble) {
  test::on_ranks({1}, [](ProcessGroup& world) {
    const RunDir dir("troubles", world);
    Config config = collapsed(dir, {});
    config.moe.experts = 16;
    config.moe.router = router_preset(RouterKind::switch_top_1);
    config.health.alarms = default_alarms();
    const auto fired = [&](float logits) {
      Trainer trainer(resolved(config, 1), world, ProgressStyle::none);
      for (Parameter& p : trainer.learner().masters())
        if (p.name.ends_with(".mlp.gate.weight")) {
          const std::int64_t d_model = p.variable.shape()[1];
          float* weights = p.variable.value().data<float>();
          std::fill_n(weights, p.variable.value().numel(), 0.0f);
          std::fill_n(weights, d_model, logits);
          std::fill_n(weights + d_model, d_model, -logits);
          p.variable.refresh_weight();
        }
      std::set<std::string> watched;
      for (int step = 1; step <= 3; ++step)
        for (const Alarm& alarm : trainer.step().alarms) watched.insert(alarm.watch);
      return watched;
    };
    EXPECT_EQ(fired(0), (std::set<std::string>{"dead_experts", "drop_fraction", "load_max"}));
    const std::set<std::string> sure = fired(1000);
    EXPECT_TRUE(sure.contains("evenness"));
    EXPECT_TRUE(sure.contains("largest_logit"));
    EXPECT_EQ(default_alarms().size(), 5u) << "all of them are here";
  });
}

TEST(Collapse, AHealthyRunIsSilent) {
  test::on_ranks({1}, [](ProcessGroup& world) {
    const RunDir dir("silent", world);
    Config config = dir.config(1, 1);
    config.health.every = 1;
    Trainer trainer(config, world, ProgressStyle::none);
    for (int step = 0; step < 40; ++step)
      for (const Alarm& alarm : trainer.step().alarms) ADD_FAILURE() << step << ": " << to_text(alarm);
  });
}

TEST(RaiseBalance, MultipliesTheCoefficientUpToItsBound) {
  test::on_ranks({1}, [](ProcessGroup& world) {
    const RunDir dir("raise", world);
    Config config = collapsed(
        dir, {.watch = reading("dead_experts"), .above = 0.25, .readings = 2, .action = AlarmAction::raise_balance});
    config.health.raise_by = 3;
    config.health.raise_to = 5;
    Trainer trainer(config, world, ProgressStyle::none);
    collapse(trainer);
    std::vector<double> scales, losses;
    for (int step = 0; step < 6; ++step) {
      const StepMetrics m = trainer.step();
      scales.push_back(trainer.learner().balance_scale());
      losses.push_back(m.router[0].health.balance_term / m.balance_loss / 0.01);
    }
    EXPECT_EQ(scales, (std::vector<double>{1, 3, 3, 5, 5, 5}));
    for (std::size_t i = 0; i < 6; ++i)
      EXPECT_NEAR(losses[i], i == 0 ? 1 : scales[i - 1], 1e-6) << "from the next step";
  });
}

TEST(RaiseBalance, AResumedRunKeepsToItsBound) {
  test::on_ranks({1}, [](ProcessGroup& world) {
    const RunDir dir("raise-bound", world);
    Config config = dir.config(1, 1);
    {
      Trainer trainer(config, world, ProgressStyle::none);
      trainer.learner().set_balance_scale(12);
      trainer.save();
    }
    EXPECT_EQ(Trainer(config, world, ProgressStyle::none).learner().balance_scale(), 12);
    config.health.raise_to = 5;
    EXPECT_EQ(Trainer(config, world, ProgressStyle::none).learner().balance_scale(), 5);
  });
}

TEST(RaiseBalance, GoesOnBitForBitAfterAStop) {
  test::on_ranks({1, 2}, [](ProcessGroup& world) {
    const RunDir dir("raise-resume", world);
    Config config = dir.config(world.size(), 1);
    // fires at every third reading, whatever it is
    config.health = {
        .every = 1,
        .raise_by = 1.5,
        .alarms = {{.watch = reading("load_max"), .above = 0.0, .readings = 3, .action = AlarmAction::raise_balance}}};
    const auto run = [&](const std::string& name, std::vector<int> parts) {
      config.run.dir = (dir.path() / name).string();
      std::vector<double> numbers;
      for (const int steps : parts) {
        Trainer trainer(config, world, ProgressStyle::none);
        for (int i = 0; i < steps; ++i) {
          const StepMetrics m = trainer.step();
          numbers.insert(numbers.end(),
                         {m.loss, m.grad_norm, m.router[0].health.balance_term, double(m.alarms.size())});
        }
        trainer.save();
        world.barrier();
      }
      return numbers;
    };
    EXPECT_EQ(run("halves", {4, 4}), run("straight", {8}));
  });
}

// What the run ended with, and what rank 0 said on standard error.
std::pair<Outcome, std::string> run(const Config& config, ProcessGroup& world) {
  if (world.rank() == 0) testing::internal::CaptureStderr();
  const Outcome outcome = Trainer(config, world, ProgressStyle::none).run();
  world.barrier();
  return {outcome, world.rank() == 0 ? testing::internal::GetCapturedStderr() : ""};
}

TEST(Stop, SavesAndEndsWithAnErrorThatNamesTheReading) {
  test::on_ranks({1, 2}, [](ProcessGroup& world) {
    const RunDir dir("stop", world);
    Config config = collapsed(
        dir, {.watch = reading("load_max"), .above = 0.0, .readings = 2, .action = AlarmAction::stop}, world.size());
    config.checkpoint.every = 0;
    const auto [outcome, said] = run(config, world);
    EXPECT_EQ(outcome, Outcome::alarmed);
    if (world.rank() == 0) {
      for (const char* part : {"error: ", "step 2", "block 1", "load_max", "above 0.0"})
        EXPECT_NE(said.find(part), std::string::npos) << said;
    }
    EXPECT_TRUE(std::filesystem::exists(checkpoint_dir(config.run.dir) / "step-00000002" / "manifest.json"));
    world.barrier();
    EXPECT_EQ(Trainer(config, world, ProgressStyle::none).steps_done(), 2) << "it goes on from there";
    world.barrier();
  });
}

TEST(Stop, AtTheLastStepIsTheEnd) {
  test::on_ranks({1, 2}, [](ProcessGroup& world) {
    const RunDir dir("stop-last", world);
    Config config = collapsed(
        dir, {.watch = reading("load_max"), .above = 0.0, .readings = 2, .action = AlarmAction::stop}, world.size());
    config.train.steps = 2;
    EXPECT_EQ(run(config, world), std::pair(Outcome::finished, std::string()));
    EXPECT_TRUE(std::filesystem::exists(checkpoint_dir(config.run.dir) / "step-00000002" / "manifest.json"));
    world.barrier();
  });
}

}  // namespace
}  // namespace switchyard
