#include <gtest/gtest.h>

#include "cuda/both.h"
#include "train/small_run.h"

// The whole trainer on the device, beside the CPU.
namespace switchyard::test {
namespace {

Config on(Config config, DeviceChoice device, const std::string& name) {
  config.run.device = device;
  config.run.dir += "-" + name;
  config.checkpoint.keep = 9;
  return config;
}

std::vector<double> steps(Trainer& trainer, int count) {
  std::vector<double> told;
  for (int i = 0; i < count; ++i) {
    const StepMetrics m = trainer.step();
    told.insert(told.end(), {m.loss, m.balance_loss, m.z_loss, m.grad_norm, m.drop_fraction, m.router_entropy});
  }
  return told;
}

void expect_near(const std::vector<double>& actual, const std::vector<double>& expected, double tolerance) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i)
    EXPECT_NEAR(actual[i], expected[i], tolerance * (1 + expected[i])) << "number " << i;
}

// Capacity (padded rows), dropless, recomputation, top-1 and a dense feed-forward of another kind.
std::vector<Config> variants(const Config& base) {
  std::vector<Config> all(4, base);
  all[1].moe.router.capacity_factor = 0;
  all[1].train.recompute = Recompute::block;
  all[2].moe.router.top_k = 1;
  all[2].moe.router.renormalise = false;
  all[2].model.activation = Activation::gelu;
  all[3].model.tied_embeddings = true;
  all[3].model.n_kv_heads = 1;
  all[3].moe.router.balance_scope = BalanceScope::micro_batch;
  return all;
}

// What only some routers ask of the device.
TEST(CudaTrain, RoutersChooseAsOnTheCpu) {
  const auto self = make_self_group();
  const RunDir dir("cuda-routers", *self);
  for (const RouterConfig& router : small_routers()) {
    Config config = dir.config(1, 1);
    config.moe.router = router;
    config = resolved(config, 1);
    const std::string name = "router-" + std::to_string(int(router.kind));
    Trainer cpu(on(config, DeviceChoice::cpu, name + "-cpu"), *self, ProgressStyle::none);
    Trainer gpu(on(config, DeviceChoice::cuda, name + "-gpu"), *self, ProgressStyle::none);
    const std::vector<double> expected = steps(cpu, 2);
    SCOPED_TRACE(name);
    expect_near(steps(gpu, 2), expected, 2e-5);
  }
}

TEST(CudaTrain, LossesAreThoseOfTheCpu) {
  const auto self = make_self_group();
  // Rounding of one step, then of a second after AdamW, which divides each gradient by its own size. In bf16 each
  // activation is rounded to 2^-9, in places that differ between the backends.
  for (const auto& [precision, tolerance] : {std::pair{Precision::fp32, 2e-5}, std::pair{Precision::bf16, 2e-2}}) {
    const RunDir dir("cuda-losses", *self);
    int i = 0;
    for (const Config& config : variants(dir.config(1, 1, precision))) {
      const std::string name = std::to_string(i++);
      Trainer cpu(on(config, DeviceChoice::cpu, name + "-cpu"), *self, ProgressStyle::none);
      Trainer gpu(on(config, DeviceChoice::cuda, name + "-gpu"), *self, ProgressStyle::none);
      const std::vector<double> expected = steps(cpu, 2);
      expect_near(steps(gpu, 2), expected, tolerance);
    }
  }
}

TEST(CudaTrain, RepeatsBitForBitAndResumesFromItsCheckpoint) {
  const auto self = make_self_group();
  const RunDir dir("cuda-resume", *self);
  const Config config = on(dir.config(1, 1, Precision::bf16), DeviceChoice::cuda, "gpu");
  std::vector<double> straight, halves;
  {
    Config other = config;
    other.run.dir += "-straight";
    Trainer trainer(other, *self, ProgressStyle::none);
    straight = steps(trainer, 4);
  }
  for (int half = 0; half < 2; ++half) {
    Trainer trainer(config, *self, ProgressStyle::none);
    const std::vector<double> told = steps(trainer, 2);
    halves.insert(halves.end(), told.begin(), told.end());
    trainer.save();
  }
  EXPECT_EQ(halves, straight);

  // What the GPU saved, the CPU continues.
  Config there = config;
  there.run.device = DeviceChoice::cpu;
  Trainer trainer(there, *self, ProgressStyle::none);
  EXPECT_EQ(trainer.steps_done(), 4);
  EXPECT_TRUE(std::isfinite(steps(trainer, 1)[0]));
}

}  // namespace
}  // namespace switchyard::test
