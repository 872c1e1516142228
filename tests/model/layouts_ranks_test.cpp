#include "model/layouts.h"
#include "ranks.h"

namespace switchyard {
namespace {

using test::SmallModel;

// Every layout of 1, 2 and 4 ranks, each beside one rank that does all the work: dense layers cut over up to 4 ranks,
// where 2 share a key head, routing groups that lie over several ranks, experts spread and cut, and up to 4 stages.
void check_every_layout(const SmallModel& small) {
  test::on_ranks({1, 2, 4}, [&](ProcessGroup& world) {
    for (int pipeline = 1; pipeline <= world.size(); pipeline *= 2) {
      const int ranks = world.size() / pipeline;
      for (int tensor = 1; tensor <= ranks; tensor *= 2)
        for (int expert = 1; expert <= ranks; expert *= 2)
          for (int expert_tensor = 1; expert * expert_tensor <= ranks; expert_tensor *= 2) {
            const ParallelConfig parallel{
                .pipeline = pipeline, .tensor = tensor, .expert = expert, .expert_tensor = expert_tensor};
            if (SmallModel::kBatch % (ranks / tensor * small.micro_batches) != 0) continue;
            SCOPED_TRACE(describe(Layout(parallel, world.size())));
            test::check_layout(world, parallel, small);
          }
    }
  });
}

TEST(ModelLayouts, EqualOneRank) { check_every_layout({}); }

TEST(ModelLayouts, EqualOneRankWithABalanceLossOverTheMicroBatch) {
  SmallModel small;
  small.moe.router.balance_scope = BalanceScope::micro_batch;
  check_every_layout(small);
}

TEST(ModelLayouts, EqualOneRankWithPaddedDispatchUngatedExpertsAndTiedEmbeddings) {
  SmallModel small;
  small.moe.activation = Activation::relu;
  small.moe.dispatch = Dispatch::padded;
  small.moe.router.group_size = 4;
  small.model.tied_embeddings = true;
  check_every_layout(small);
}

// As many micro-batches as stages, and more.
TEST(ModelLayouts, EqualOneRankWithFourMicroBatchesAndTiedEmbeddings) {
  SmallModel small;
  small.micro_batches = 4;
  small.model.tied_embeddings = true;
  check_every_layout(small);
}

// With one sample of a rank at a time, whose routing group two ranks then share.
TEST(ModelLayouts, EqualOneRankWithMicroBatchesAndRecomputation) {
  SmallModel small;
  small.micro_batches = 2;
  small.recompute = Recompute::block;
  check_every_layout(small);
}

// Eight tokens reach the last bucket, whose distances begin at 4.
TEST(ModelLayouts, EqualOneRankWithBiasesByDistance) {
  SmallModel small;
  small.model.positions = Positions::relative_bias;
  small.model.relative_buckets = 4;
  small.model.relative_max_distance = 6;
  small.model.qk_norm = false;
  small.recompute = Recompute::attention;
  check_every_layout(small);
}

TEST(ModelLayouts, EqualOneRankWithHalfTheRowsOnTheirWay) {
  SmallModel small;
  small.moe.overlap = Overlap::on;
  small.moe.router.group_size = 4;
  small.recompute = Recompute::ffn;
  check_every_layout(small);
}

TEST(Recompute, GivesTheSameBits) {
  test::on_ranks({2}, [](ProcessGroup& world) {
    for (const ParallelConfig& parallel : {ParallelConfig{.expert = 2}, {.tensor = 2, .expert = 2}}) {
      SmallModel small;
      small.model.positions = Positions::relative_bias;
      const test::ModelRun kept = test::run_model(small, world, parallel);
      for (const Recompute recompute : {Recompute::block, Recompute::attention, Recompute::ffn}) {
        small.recompute = recompute;
        test::expect_same_bits(test::run_model(small, world, parallel), kept);
      }
    }
  });
}

}  // namespace
}  // namespace switchyard
