#include "train/memory_plan.h"

#include <gtest/gtest.h>

#include "model/placement.h"
#include "train/small_run.h"

namespace switchyard {
namespace {

TEST(MemoryPlan, IsWhatAStepTakes) {
  for (const Precision precision : {Precision::fp32, Precision::bf16})
    for (const auto& [recompute, positions] : {std::pair{Recompute::none, Positions::rope},
                                               {Recompute::none, Positions::relative_bias},
                                               {Recompute::block, Positions::rope},
                                               {Recompute::attention, Positions::rope},
                                               {Recompute::ffn, Positions::rope}}) {
      const auto self = make_self_group();
      const test::RunDir dir("memory", *self);
      Config config = dir.config(1, 1, precision);
      config.model = resolved(ModelConfig{.vocab_size = 258, .d_model = 96, .n_layers = 4, .n_heads = 4, .d_ff = 256});
      config.model.positions = positions;
      config.model.qk_norm = positions == Positions::rope;
      config.moe = resolved(
          MoeConfig{.experts = 8, .activation = Activation::relu, .router = {.top_k = 2, .capacity_factor = 0}},
          config.model, 64);
      config.train = {.steps = 3, .seq_len = 64, .global_batch = 16, .micro_batch = 16, .recompute = recompute};
      if (recompute == Recompute::attention || recompute == Recompute::ffn) {
        config.optim = optim_preset(OptimKind::adafactor);
        config.optim.beta1 = recompute == Recompute::ffn ? 0.9 : 0;
      }
      const MemoryPlan plan = plan_memory(config);

      const MemoryUse before = memory_use({});
      Trainer trainer(config, *self, ProgressStyle::none);
      trainer.step();
      reset_peak({});
      trainer.step();
      MemoryUse use = memory_use({});
      trainer.run();
      const auto saved = static_cast<std::size_t>(Memory::checkpoint);
      use.peak[saved] = memory_use({}).peak[saved];
      for (const Memory kind :
           {Memory::parameters, Memory::gradients, Memory::optimizer, Memory::activations, Memory::checkpoint}) {
        const auto k = static_cast<std::size_t>(kind);
        const double measured = static_cast<double>(use.peak[k] - before.now[k]),
                     planned = static_cast<double>(plan.bytes[k]);
        // Loads of experts are not even, and ops pass a few rows beside what is counted.
        const std::string what = text(name_of(kind), ", recompute ", int(recompute), ", positions ", int(positions));
        EXPECT_GT(measured, 0.95 * planned) << what;
        EXPECT_LT(measured, 1.05 * planned) << what;
      }
    }
}

// Ranks are threads of one account, which so holds the sum of theirs.
TEST(MemoryPlan, IsWhatASharedOutOptimizerTakes) {
  constexpr int kRanks = 4;
  for (const Precision precision : {Precision::fp32, Precision::bf16})
    for (const ParallelConfig& parallel : {ParallelConfig{.data = 4, .expert = 2, .shard_optimizer = true},
                                           {.data = 2, .tensor = 2, .expert = 4, .shard_optimizer = true}}) {
      SCOPED_TRACE(text("tensor ", parallel.tensor, precision == Precision::fp32 ? ", fp32" : ", bf16"));
      const MemoryUse before = memory_use({});
      run_ranks(kRanks, [&](ProcessGroup& world) {
        const test::RunDir dir("memory", world);
        Config config = dir.config(kRanks, 1, precision);
        config.parallel = parallel;
        config.model =
            resolved(ModelConfig{.vocab_size = 512, .d_model = 96, .n_layers = 4, .n_heads = 4, .d_ff = 256});
        config.moe = resolved(MoeConfig{.experts = 8, .router = {.top_k = 2, .capacity_factor = 0}}, config.model, 64);
        config.train = {.steps = 2, .seq_len = 64, .global_batch = 8, .micro_batch = 1};
        const MemoryPlan plan = plan_memory(config);
        Learner learner(config, world);
        learner.step(0);
        world.barrier();
        if (world.rank() == 0) reset_peak({});
        world.barrier();
        const StepSums sums = learner.backward(1);
        world.barrier();
        const MemoryUse use = memory_use({});
        world.barrier();
        const auto each = [&](Memory kind, const std::array<std::int64_t, kMemoryKinds>& bytes) {
          const auto k = static_cast<std::size_t>(kind);
          return static_cast<double>(bytes[k] - before.now[k]) / kRanks;
        };
        const auto planned = [&](Memory kind) {
          return static_cast<double>(plan.bytes[static_cast<std::size_t>(kind)]);
        };
        // The allocator rounds up by an eighth at most, buckets to a share of 16 elements; the vocabulary and heads
        // divide evenly.
        for (const Memory kind : {Memory::parameters, Memory::optimizer}) {
          EXPECT_GT(each(kind, use.now), 0.97 * planned(kind)) << name_of(kind);
          EXPECT_LT(each(kind, use.now), 1.15 * planned(kind)) << name_of(kind);
        }
        // Everything in the last backward pass, then each rank's own, half of what its states take.
        EXPECT_LT(each(Memory::gradients, use.peak), 1.15 * planned(Memory::gradients));
        EXPECT_LT(each(Memory::gradients, use.now), 1.15 * planned(Memory::optimizer) / 2);
        learner.update(1, sums);
        world.barrier();
      });
    }
}

}  // namespace
}  // namespace switchyard
