#include "model/pipeline.h"

#include <gtest/gtest.h>

#include "model/layouts.h"
#include "ranks.h"

namespace switchyard {
namespace {

using test::SmallModel;

// What a stage did in one step: F and B, micro-batch by micro-batch.
std::string order_of(std::int64_t micro_batches, ProcessGroup& world) {
  SmallModel small;
  small.model.n_layers = world.size();
  Mesh mesh({.pipeline = world.size()}, world);
  Transformer model(small.model, small.moe, DType::f32, 7, Device{}, mesh,
                    cut_into_stages(small.model, small.moe, SmallModel::kSeq, mesh.stages()));
  std::string order;
  model.parameters()[0].variable.on_grad([&] { order += 'B'; });
  const auto batch = [&](std::int64_t) -> MicroBatch {
    const Tensor token_T = test::ints({4}, {1, 2, 3, 4});
    return {token_T, token_T, {.batch = 1, .seq = 4, .share = 0.1f, .capacity = Capacity::unlimited}};
  };
  Pipeline(model, mesh)
      .step({.micro_batches = micro_batches,
             .batch = batch,
             .forward = [&](const ModelResult&) { order += 'F'; },
             .last_backward = [&] { order += '!'; }});
  return order;
}

// Narayanan et al., arXiv 2104.04473, figure 3's bottom half without interleaving.
TEST(Pipeline, OneForwardOneBackward) {
  test::on_ranks({1, 2, 4}, [](ProcessGroup& world) {
    const int stages = world.size(), ahead_of_all = stages - 1 - world.rank();
    for (const int count : {1, 2, 3, 4, 7}) {
      std::string expected;
      const int ahead = std::min(ahead_of_all, count);
      expected.append(std::size_t(ahead), 'F');
      for (int i = ahead; i < count; ++i) expected += i + 1 == count && ahead == 0 ? "F!B" : "FB";
      for (int i = 0; i < ahead; ++i) expected += i + 1 == ahead ? "!B" : "B";
      EXPECT_EQ(order_of(count, world), expected) << count << " micro-batches, stage " << world.rank();
    }
  });
}

TEST(Pipeline, BringsABatchOfNothing) {
  test::on_ranks({2}, [](ProcessGroup& world) {
    SmallModel small;
    Mesh mesh({.pipeline = 2}, world);
    Transformer model(small.model, small.moe, DType::f32, 7, Device{}, mesh,
                      cut_into_stages(small.model, small.moe, SmallModel::kSeq, 2));
    NoGrad guard;
    const Tensor none = Tensor::empty({0}, DType::i32, Device{});
    const ModelResult result =
        Pipeline(model, mesh)
            .forward({none, none, {.batch = 0, .seq = SmallModel::kSeq, .share = 1, .capacity = Capacity::unlimited}});
    EXPECT_EQ(test::at(result.lm_loss_1, 0), 0);
  });
}

}  // namespace
}  // namespace switchyard
