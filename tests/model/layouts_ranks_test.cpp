#include "model/layouts.h"
#include "ranks.h"

namespace switchyard {
namespace {

using test::SmallModel;

// One rank, 2 data, 2 expert, 4 expert, and 2 data x 2 expert ranks, each beside one rank that does all the work.
void check_every_layout(const SmallModel& small) {
  test::on_ranks({1, 2, 4}, [&](ProcessGroup& world) {
    for (int expert_ranks = 1; expert_ranks <= world.size(); expert_ranks *= 2) {
      SCOPED_TRACE(text(world.size(), " ranks, experts over ", expert_ranks));
      test::check_layout(world, expert_ranks, small);
    }
  });
}

TEST(ModelLayouts, EqualOneRank) { check_every_layout({}); }

TEST(ModelLayouts, EqualOneRankWithABalanceLossOverTheMicroBatch) {
  SmallModel small;
  small.moe.balance_scope = BalanceScope::micro_batch;
  check_every_layout(small);
}

TEST(Recompute, GivesTheSameBits) {
  test::on_ranks({2}, [](ProcessGroup& world) {
    SmallModel small;
    const test::ModelRun kept = test::run_model(small, world, 2);
    small.recompute = Recompute::block;
    test::expect_same_bits(test::run_model(small, world, 2), kept);
  });
}

}  // namespace
}  // namespace switchyard
