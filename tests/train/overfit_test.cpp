#include <gtest/gtest.h>

#include "grad_check.h"
#include "model/placement.h"
#include "model/transformer.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"

namespace switchyard {
namespace {

// A tiny mixture of experts learns one batch of random tokens by heart.
double loss_after(std::int64_t steps, DType rows, const OptimConfig& optim) {
  const auto self = make_self_group();
  Mesh mesh({}, *self);
  const ModelConfig config =
      resolved(ModelConfig{.vocab_size = 32, .d_model = 32, .n_layers = 2, .n_heads = 2, .d_ff = 64});
  const MoeConfig moe = resolved(MoeConfig{.experts = 4, .router = {.top_k = 2, .capacity_factor = 0}}, config, 16);
  Transformer model(config, moe, rows, 1, Device{}, mesh);
  Shards shards(model.parameters(), mesh, kBucketBytes, Masters::whole, rows);
  const auto optimizer = make_optimizer(optim, shards, mesh);

  std::vector<std::int32_t> tokens, targets;
  for (std::uint64_t i = 0; i < 32; ++i) {
    tokens.push_back(std::int32_t(philox({1, 1}, i)[0] % 32));
    targets.push_back(std::int32_t(philox({1, 2}, i)[0] % 32));
  }
  double loss = 0;
  for (std::int64_t step = 0; step < steps; ++step) {
    ModelResult result =
        model(test::ints({32}, tokens), test::ints({32}, targets), {.batch = 2, .seq = 16, .share = 1.0f / 32});
    loss = test::at(result.lm_loss_1, 0);
    result.out.backward(test::floats({1}, {1}));
    optimizer->step(learning_rate(optim, step, steps), test::floats({1}, {1}));
    for (Parameter& p : model.parameters()) p.variable.zero_grad();
  }
  return loss;
}

const OptimConfig kAdamW{
    .lr = 1e-2, .weight_decay = 0, .schedule = {.kind = ScheduleKind::linear, .warmup_steps = 0, .min_ratio = 0}};

TEST(Overfit, OneBatchInFp32) { EXPECT_LT(loss_after(300, DType::f32, kAdamW), 0.01); }
TEST(Overfit, OneBatchInBf16) { EXPECT_LT(loss_after(300, DType::bf16, kAdamW), 0.01); }

// As published, the steps of the hold in proportion.
TEST(Overfit, OneBatchWithAdafactor) {
  OptimConfig optim = optim_preset(OptimKind::adafactor);
  optim.schedule.hold_steps = 100;
  for (const DType rows : {DType::f32, DType::bf16}) EXPECT_LT(loss_after(300, rows, optim), 0.05);
}

}  // namespace
}  // namespace switchyard
