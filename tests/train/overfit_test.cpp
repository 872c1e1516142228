#include <gtest/gtest.h>

#include "grad_check.h"
#include "model/placement.h"
#include "model/transformer.h"
#include "optim/adamw.h"

namespace switchyard {
namespace {

// A tiny mixture of experts learns one batch of random tokens by heart.
double loss_after(std::int64_t steps, DType rows) {
  const auto self = make_self_group();
  Mesh mesh({}, *self);
  const ModelConfig config =
      resolved(ModelConfig{.vocab_size = 32, .d_model = 32, .n_layers = 2, .n_heads = 2, .d_ff = 64});
  const MoeConfig moe = resolved(MoeConfig{.experts = 4, .router = {.top_k = 2, .capacity_factor = 0}}, config, 16);
  Transformer model(config, moe, rows, 1, Device{}, mesh);
  AdamW optimizer(model.parameters(), OptimConfig{.weight_decay = 0});

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
    optimizer.step(1e-2 * double(steps - step) / double(steps), test::floats({1}, {1}));
    for (Parameter& p : model.parameters()) p.variable.zero_grad();
  }
  return loss;
}

TEST(Overfit, OneBatchInFp32) { EXPECT_LT(loss_after(300, DType::f32), 0.01); }
TEST(Overfit, OneBatchInBf16) { EXPECT_LT(loss_after(300, DType::bf16), 0.01); }

}  // namespace
}  // namespace switchyard
