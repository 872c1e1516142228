#include "train/memory_plan.h"

#include <gtest/gtest.h>

#include "model/placement.h"
#include "train/small_run.h"

namespace switchyard {
namespace {

TEST(MemoryPlan, IsWhatAStepTakes) {
  for (const Precision precision : {Precision::fp32, Precision::bf16})
    for (const Recompute recompute : {Recompute::none, Recompute::block, Recompute::attention, Recompute::ffn}) {
      const auto self = make_self_group();
      const test::RunDir dir("memory", *self);
      Config config = dir.config(1, 1, precision);
      config.model = resolved(ModelConfig{.vocab_size = 258, .d_model = 96, .n_layers = 4, .n_heads = 4, .d_ff = 256});
      config.moe = resolved(MoeConfig{.experts = 8, .top_k = 2, .capacity_factor = 0}, config.model, 64);
      config.train = {.steps = 2, .seq_len = 64, .global_batch = 16, .micro_batch = 16, .recompute = recompute};
      const MemoryPlan plan = plan_memory(config, 1);

      const MemoryUse before = memory_use({});
      Trainer trainer(config, *self, ProgressStyle::none);
      trainer.step();
      reset_peak({});
      trainer.step();
      const MemoryUse use = memory_use({});
      for (const Memory kind : {Memory::parameters, Memory::gradients, Memory::optimizer, Memory::activations}) {
        const auto k = static_cast<std::size_t>(kind);
        const double measured = static_cast<double>(use.peak[k] - before.now[k]),
                     planned = static_cast<double>(plan.bytes[k]);
        // The allocator rounds up by an eighth at most; ops' passing needs beside what they keep are a few rows more.
        EXPECT_GT(measured, 0.95 * planned) << name_of(kind) << ", recompute " << int(recompute);
        EXPECT_LT(measured, 1.25 * planned) << name_of(kind) << ", recompute " << int(recompute);
      }
    }
}

}  // namespace
}  // namespace switchyard
