#include "model/stages.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "model/count.h"
#include "model/placement.h"
#include "tensor/philox.h"

namespace switchyard {
namespace {

double cost(const ModelConfig& m, const MoeConfig& moe, std::int64_t seq_len, const Stage& stage) {
  const std::vector<bool> is_moe = moe_blocks(moe, m.n_layers);
  double sum = stage.end == m.n_layers ? 6.0 * double(m.vocab_size * m.d_model) : 0;
  for (std::int64_t i = stage.begin; i < stage.end; ++i)
    sum += count_block(m, moe, is_moe[std::size_t(i)], seq_len).flops_per_token;
  return sum;
}

// The least that the slowest stage can cost, of all cuts of blocks [begin, n_layers).
double least(const ModelConfig& m, const MoeConfig& moe, std::int64_t seq_len, std::int64_t begin, int stages) {
  if (stages == 1) return cost(m, moe, seq_len, {begin, m.n_layers});
  double best = INFINITY;
  for (std::int64_t end = begin + 1; end <= m.n_layers - (stages - 1); ++end)
    best = std::min(best, std::max(cost(m, moe, seq_len, {begin, end}), least(m, moe, seq_len, end, stages - 1)));
  return best;
}

// Small models of many shapes, with heads and experts that weigh little or much.
TEST(Stages, TheSlowestIsAsFastAsCanBe) {
  for (unsigned i = 0; i < 60; ++i) {
    const auto bits = philox({11, 0}, i);
    const ModelConfig m =
        resolved(ModelConfig{.vocab_size = 30 << bits[0] % 7, .d_model = 16, .n_layers = 1 + bits[1] % 8});
    const MoeConfig moe = resolved(
        MoeConfig{
            .experts = 4, .d_ff = 8 << bits[2] / 4 % 6, .every = 1 + bits[3] % 3, .router = {.top_k = 1 + bits[2] % 4}},
        m, 8);
    for (int stages = 1; stages <= m.n_layers; ++stages) {
      const std::vector<Stage> cut = cut_into_stages(m, moe, 8, stages);
      ASSERT_EQ(std::ssize(cut), stages);
      double slowest = 0;
      for (std::size_t s = 0; s < cut.size(); ++s) {
        EXPECT_EQ(cut[s].begin, s == 0 ? 0 : cut[s - 1].end);
        EXPECT_GE(cut[s].blocks(), 1);
        slowest = std::max(slowest, cost(m, moe, 8, cut[s]));
      }
      EXPECT_EQ(cut.back().end, m.n_layers);
      EXPECT_EQ(slowest, least(m, moe, 8, 0, stages)) << stages << " stages of model " << i;
    }
  }
}

TEST(Stages, EqualBlocksLeaveTheFirstStagesLess) {
  const ModelConfig m = resolved(ModelConfig{.vocab_size = 2, .d_model = 64, .n_layers = 7});
  EXPECT_EQ(cut_into_stages(m, resolved(MoeConfig{.experts = 0}, m, 8), 8, 3),
            (std::vector<Stage>{{0, 2}, {2, 5}, {5, 7}}));
}

TEST(Stages, AHeavyHeadCountsAsBlocks) {
  const ModelConfig m = resolved(ModelConfig{.vocab_size = 1 << 16, .d_model = 64, .n_layers = 8});
  EXPECT_EQ(cut_into_stages(m, resolved(MoeConfig{.experts = 0}, m, 8), 8, 2), (std::vector<Stage>{{0, 7}, {7, 8}}));
}

TEST(Stages, RefusesMoreThanThereAreBlocks) {
  const ModelConfig m = resolved(ModelConfig{.n_layers = 2});
  EXPECT_THROW(cut_into_stages(m, resolved(MoeConfig{}, m, 8), 8, 3), Error);
  EXPECT_THROW(cut_into_stages(m, resolved(MoeConfig{}, m, 8), 8, 0), Error);
}

}  // namespace
}  // namespace switchyard
