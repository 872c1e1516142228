#include "model/transformer.h"

#include <gtest/gtest.h>

#include "model/count.h"
#include "model/layouts.h"
#include "model/placement.h"

namespace switchyard {
namespace {

using test::SmallModel;

TEST(MicroBatches, SumToTheWholeBatch) {
  const auto self = make_self_group();
  SmallModel small;
  const test::ModelRun whole = test::run_model(small, *self);
  small.micro_batches = 4;
  test::expect_same_run(test::run_model(small, *self), whole);
}

TEST(DenseModel, HasNoExpertsAndNoRouterLoss) {
  const auto self = make_self_group();
  SmallModel small;
  small.moe.experts = 0;
  const test::ModelRun run = test::run_model(small, *self);
  EXPECT_EQ(run.loss, run.lm_loss);
  for (const Parameter& p : run.parameters) EXPECT_EQ(p.name.find("experts"), std::string::npos);
}

TEST(Transformer, GradientsMatchFiniteDifferences) {
  const auto self = make_self_group();
  Mesh mesh({}, *self);
  const SmallModel small;
  Transformer model(small.model, small.moe, DType::f32, 7, Device{}, mesh);
  const Tensor tokens = test::ints({8}, {1, 4, 9, 16, 25, 5, 18, 2}),
               targets = test::ints({8}, {4, 9, 16, 25, 5, 18, 2, -1});
  const auto loss = [&] { return model(tokens, targets, {.batch = 1, .seq = 8, .share = 1.0f / 7}); };
  loss().out.backward(test::floats({1}, {1}));
  NoGrad guard;
  for (Parameter& p : model.parameters()) {
    SCOPED_TRACE(p.name);
    const Tensor direction = test::random(p.variable.shape(), 3);
    const double slope = test::dot(p.variable.grad(), direction);
    const auto moved = [&](double by) {
      float* w = p.variable.value().data<float>();
      for (std::int64_t i = 0; i < direction.numel(); ++i) w[i] += float(by) * direction.data<float>()[i];
      const double value = test::at(loss().out.value(), 0);
      for (std::int64_t i = 0; i < direction.numel(); ++i) w[i] -= float(by) * direction.data<float>()[i];
      return value;
    };
    // f32 losses near 4 are good to 1e-6, so a step of 1e-3 gives slopes to about 1e-3, plus curvature.
    EXPECT_NEAR((moved(1e-3) - moved(-1e-3)) / 2e-3, slope, 4e-3 * (1 + std::abs(slope)));
  }
}

TEST(NextLogits, AreTheLastRowOfTheHeads) {
  const auto self = make_self_group();
  Mesh mesh({}, *self);
  const SmallModel small;
  const Transformer model(small.model, small.moe, DType::f32, 7, Device{}, mesh);
  const Tensor tokens = test::ints({4}, {1, 4, 9, 16});
  const Tensor logits = model.next_logits(tokens, 1, 4);
  ASSERT_EQ(logits.shape(), (Shape{1, 31}));
  double sum = 0;
  for (std::int64_t v = 0; v < 31; ++v) sum += std::exp(test::at(logits, v));
  NoGrad guard;
  for (const std::int32_t target : {0, 7, 30}) {
    const ModelResult result = model(tokens, test::ints({4}, {-1, -1, -1, target}),
                                     {.batch = 1, .seq = 4, .share = 1, .capacity = Capacity::unlimited});
    EXPECT_NEAR(test::at(result.lm_loss_1, 0), std::log(sum) - test::at(logits, target), 1e-5);
  }
}

// Where experts choose, a window is one routing group, also where it is a multiple of those of training, and each text
// of a batch stands for itself.
TEST(NextLogits, OfExpertsThatChooseAreOfTheWindow) {
  const auto self = make_self_group();
  Mesh mesh({}, *self);
  const auto logits = [&](std::int64_t group_size, std::vector<std::int32_t> tokens, std::int64_t batch) {
    SmallModel small;
    small.moe.router = router_preset(RouterKind::expert_choice);
    small.moe.router.group_size = group_size;
    small.moe.router.groups_met = 1;
    const Transformer model(small.model, small.moe, DType::f32, 7, Device{}, mesh);
    const auto count = std::ssize(tokens);
    return model.next_logits(test::ints({count}, tokens), batch, count / batch);
  };
  const std::vector<std::int32_t> text{1, 4, 9, 16, 25, 5, 18, 2};
  const Tensor expected = logits(8, text, 1);
  for (const std::int64_t group_size : {2, 4, 16}) test::expect_near(logits(group_size, text, 1), expected, 0);
  std::vector<std::int32_t> two(text.rbegin(), text.rend());
  two.insert(two.end(), text.begin(), text.end());
  test::expect_near(logits(4, two, 2).rows(1, 2), expected, 1e-5);
  EXPECT_EQ(logits(4, {1}, 1).shape(), (Shape{1, 31})) << "and one token is a window too";
}

TEST(CountModel, AgreesWithTheParameters) {
  const auto self = make_self_group();
  Mesh mesh({}, *self);
  for (const bool tied : {false, true})
    for (const Activation activation : {Activation::swiglu, Activation::relu})  // of dense blocks, not of experts
      for (const std::int64_t experts : {0, 8}) {
        SmallModel small;
        small.model.tied_embeddings = tied;
        small.model.activation = activation;
        small.model.qk_norm = tied;
        small.model.positions = tied ? Positions::rope : Positions::relative_bias;
        small.moe.experts = experts;
        small.moe.shared_experts = tied ? 2 : 0;
        small.moe.activation = is_gated(activation) ? Activation::gelu : Activation::geglu;
        const Transformer model(small.model, small.moe, DType::f32, 7, Device{}, mesh);
        std::int64_t all = 0, in_experts = 0;
        for (const Parameter& p : model.parameters()) {
          all += p.global_shape.numel();
          if (p.replicas == Replicas::expert_data) in_experts += p.global_shape.numel();
        }
        const ModelCount count = count_model(small.model, small.moe, 8);
        EXPECT_EQ(count.parameters, all);
        EXPECT_EQ(count.expert_parameters, in_experts);
      }
}

TEST(CountModel, FlopsOfAModelWorkedOutByHand) {
  // d = 4, 2 heads of 2, no bias: qkv 3*16 + o 16 = 64; dense SwiGLU of 8: 3*4*8 = 96; top-1 expert of 8: 96 + router
  // 2*4; head 10*4. Products: 64 + 96 + 64 + 96 + 8 + 40 = 368. Attention 6 * 2 blocks * 16 tokens * 4 wide = 768.
  const ModelConfig model =
      resolved(ModelConfig{.vocab_size = 10, .d_model = 4, .n_layers = 2, .n_heads = 2, .d_ff = 8});
  const MoeConfig moe = resolved(MoeConfig{.experts = 2, .router = {.top_k = 1}}, model, 16);
  EXPECT_EQ(count_model(model, moe, 16).flops_per_token, 6 * 368 + 768);
}

// Experts that choose take so many tokens of a group, and no more than there are: an expert has 96 parameters here.
TEST(CountModel, OfExpertsThatChooseIsWhatTheyTake) {
  const ModelConfig model =
      resolved(ModelConfig{.vocab_size = 10, .d_model = 4, .n_layers = 1, .n_heads = 2, .d_ff = 8});
  const auto active = [&](Choosing choice, double factor) {
    const RouterConfig router{.choice = choice, .top_k = 2, .capacity_factor = factor};
    return count_model(model, resolved(MoeConfig{.experts = 4, .every = 1, .router = router}, model, 16), 16).active;
  };
  const std::int64_t by_tokens = active(Choosing::tokens, 3), expert = 96;
  EXPECT_EQ(active(Choosing::tokens, 0.5), by_tokens) << "whatever is dropped";
  EXPECT_EQ(active(Choosing::experts, 1), by_tokens);
  EXPECT_EQ(active(Choosing::experts, 1.5), by_tokens + expert);
  EXPECT_EQ(active(Choosing::experts, 3), by_tokens + 2 * expert) << "there are four";
  EXPECT_EQ(active(Choosing::experts, 1.1), by_tokens + expert / 4) << "9 of 16 tokens each";
}

TEST(MoeBlocks, PlacementRules) {
  using Blocks = std::vector<bool>;
  EXPECT_EQ(moe_blocks({.experts = 8}, 4), (Blocks{false, true, false, true}));  // GLaM
  EXPECT_EQ(moe_blocks({.experts = 8, .every = 1}, 3), (Blocks{true, true, true}));
  EXPECT_EQ(moe_blocks({.experts = 8, .every = 1, .first_dense = 1}, 3), (Blocks{false, true, true}));  // DeepSeek
  EXPECT_EQ(moe_blocks({.experts = 8, .layers = {0, 2}}, 4), (Blocks{true, false, true, false}));
  EXPECT_EQ(moe_blocks({.experts = 0}, 2), (Blocks{false, false}));
}

}  // namespace
}  // namespace switchyard
