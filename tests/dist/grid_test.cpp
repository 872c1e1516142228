#include "dist/grid.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>

#include "tensor/error.h"
#include "tensor/philox.h"

namespace switchyard {
namespace {

TEST(Grid, LastAxisVariesFastest) {
  const Grid grid({{Axis::edp, 2}, {Axis::ep, 3}});
  EXPECT_EQ(grid.size(), 6);
  EXPECT_EQ(grid.coord(4, Axis::edp), 1);
  EXPECT_EQ(grid.coord(4, Axis::ep), 1);
  EXPECT_EQ(grid.peers(4, {Axis::ep}), (std::vector{3, 4, 5}));
  EXPECT_EQ(grid.peers(4, {Axis::edp}), (std::vector{1, 4}));
  EXPECT_EQ(grid.peers(4, {Axis::edp, Axis::ep}), (std::vector{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(grid.peers(4, {}), (std::vector{4}));
}

TEST(Grid, RefusesWhatItDoesNotHave) {
  EXPECT_THROW(Grid({{Axis::dp, 0}}), Error);
  const Grid grid({{Axis::dp, 4}});
  EXPECT_THROW(grid.coord(0, Axis::ep), Error);
  EXPECT_THROW(grid.peers(0, {Axis::edp}), Error);
  EXPECT_THROW(grid.coord(4, Axis::dp), Error);
  EXPECT_THROW(grid.coord(-1, Axis::dp), Error);
}

TEST(Layout, NeighboursShareOneSetOfExperts) {
  const Layout layout({.data = 8, .expert = 4}, 8);
  EXPECT_EQ(layout.dense.peers(5, {Axis::dp}), (std::vector{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(layout.expert.peers(1, {Axis::ep}), (std::vector{0, 1, 2, 3}));
  EXPECT_EQ(layout.expert.peers(5, {Axis::ep}), (std::vector{4, 5, 6, 7}));
  EXPECT_EQ(layout.expert.peers(5, {Axis::edp}), (std::vector{1, 5}));
}

TEST(Layout, DataZeroIsTheWholeWorld) {
  const Layout layout({.expert = 2}, 6);
  EXPECT_EQ(layout.dense.extent(Axis::dp), 6);
  EXPECT_EQ(layout.expert.extent(Axis::edp), 3);
}

TEST(Layout, TensorRanksAreNeighboursAndExpertsFoldOverThem) {
  const Layout layout({.tensor = 2, .expert = 2, .expert_tensor = 2}, 8);
  EXPECT_EQ(describe(layout), "pipeline 1, data 4, tensor 2, expert 2, expert_tensor 2");
  EXPECT_EQ(layout.dense.peers(5, {Axis::tp}), (std::vector{4, 5}));
  EXPECT_EQ(layout.dense.peers(5, {Axis::dp}), (std::vector{1, 3, 5, 7}));
  EXPECT_EQ(layout.expert.peers(5, {Axis::etp}), (std::vector{4, 5}));
  EXPECT_EQ(layout.expert.peers(5, {Axis::ep}), (std::vector{5, 7}));
  EXPECT_EQ(layout.expert.peers(5, {Axis::edp}), (std::vector{1, 5}));
  // Experts spread over tensor ranks, none cut.
  const Layout folded({.tensor = 4, .expert = 8}, 8);
  EXPECT_EQ(folded.expert.peers(5, {Axis::ep}), (std::vector{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(folded.dense.peers(5, {Axis::tp}), (std::vector{4, 5, 6, 7}));
}

TEST(Layout, StagesAreBlocksOfNeighbours) {
  const Layout layout({.pipeline = 2, .tensor = 2, .expert = 4}, 8);
  EXPECT_EQ(describe(layout), "pipeline 2, data 2, tensor 2, expert 4, expert_tensor 1");
  EXPECT_EQ(layout.dense.peers(5, {Axis::dp, Axis::tp}), (std::vector{4, 5, 6, 7}));
  EXPECT_EQ(layout.dense.peers(5, {Axis::dp}), (std::vector{5, 7}));
  EXPECT_EQ(layout.dense.peers(5, {Axis::pp}), (std::vector{1, 5}));
  EXPECT_EQ(layout.expert.peers(5, {Axis::ep}), (std::vector{4, 5, 6, 7}));
}

// 200 layouts: along every axis the groups cover every rank once, the peers of a peer are the same group, the
// coordinate counts the group's ranks in order, and groups along different axes of one view meet in one rank.
TEST(Layout, AxesPartitionTheWorld) {
  for (unsigned i = 0; i < 200; ++i) {
    const auto bits = philox({7, 0}, i), more = philox({8, 0}, i);
    const int expert = 1 + static_cast<int>(bits[0] % 4), copies = 1 + static_cast<int>(bits[1] % 4),
              expert_tensor = 1 + static_cast<int>(more[0] % 3);
    const int stage = expert * copies * expert_tensor, pipeline = 1 + static_cast<int>(more[2] % 3),
              world = pipeline * stage;
    int tensor = 1 + static_cast<int>(more[1] % 6);
    while (stage % tensor != 0) --tensor;
    const Layout layout({.data = bits[2] % 2 ? stage / tensor : 0,
                         .pipeline = pipeline,
                         .tensor = tensor,
                         .expert = expert,
                         .expert_tensor = expert_tensor},
                        world);
    ASSERT_EQ(layout.dense.size(), world);
    ASSERT_EQ(layout.expert.size(), world);
    for (auto [grid, axis] : {std::pair{&layout.dense, Axis::pp},
                              {&layout.dense, Axis::dp},
                              {&layout.dense, Axis::tp},
                              {&layout.expert, Axis::pp},
                              {&layout.expert, Axis::edp},
                              {&layout.expert, Axis::ep},
                              {&layout.expert, Axis::etp}}) {
      std::set<std::vector<int>> groups;
      std::vector<int> seen(static_cast<std::size_t>(world));
      for (int rank = 0; rank < world; ++rank) {
        const std::vector<int> peers = grid->peers(rank, {axis});
        ASSERT_EQ(std::ssize(peers), grid->extent(axis));
        ASSERT_EQ(peers[static_cast<std::size_t>(grid->coord(rank, axis))], rank);
        ASSERT_TRUE(std::ranges::is_sorted(peers));
        if (groups.insert(peers).second)
          for (int peer : peers) ++seen[static_cast<std::size_t>(peer)];
      }
      ASSERT_EQ(seen, std::vector<int>(static_cast<std::size_t>(world), 1)) << axis << " of " << describe(layout);
    }
    for (int rank = 0; rank < world; ++rank) {
      const auto set = layout.expert.peers(rank, {Axis::ep, Axis::etp}),
                 column = layout.expert.peers(rank, {Axis::edp});
      ASSERT_EQ(set.back() - set.front(), expert * expert_tensor - 1) << "experts spread over neighbours";
      const auto row = layout.dense.peers(rank, {Axis::tp});
      ASSERT_EQ(row.back() - row.front(), tensor - 1) << "dense layers cut over neighbours";
      std::vector<int> both;
      std::ranges::set_intersection(set, column, std::back_inserter(both));
      ASSERT_EQ(both, std::vector{rank});
    }
  }
}

std::string refusal(const ParallelConfig& config, int world) {
  try {
    Layout(config, world);
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::usage);
    return error.what();
  }
  return "accepted";
}

TEST(Layout, SaysWhichLayoutsWouldFit) {
  EXPECT_EQ(refusal({.data = 4, .expert = 3}, 4),
            "parallel.expert = 3 does not divide data x tensor = 4; 1, 2 and 4 do");
  EXPECT_EQ(refusal({.data = 0, .expert = 7}, 96),
            "parallel.expert = 7 does not divide data x tensor = 96; 3, 4, 6 and 8 do");
  EXPECT_EQ(refusal({.data = 1, .expert = 2}, 1), "parallel.expert = 2 does not divide data x tensor = 1; 1 does");
  EXPECT_EQ(refusal({.data = 3}, 4), "parallel.data = 3 does not fit 4 ranks; 4 does, or 0 for all of them");
  EXPECT_EQ(refusal({.data = 2}, 1), "parallel.data = 2 does not fit 1 rank; 1 does, or 0 for all of them");
  EXPECT_EQ(refusal({.tensor = 3}, 4), "parallel.tensor = 3 does not divide the run's 4 ranks; 1, 2 and 4 do");
  EXPECT_EQ(refusal({.data = 4, .tensor = 2}, 4),
            "parallel.data = 4 with parallel.tensor = 2 does not fit 4 ranks; 2 does, or 0 for all of them");
  EXPECT_EQ(refusal({.tensor = 2, .expert = 4, .expert_tensor = 2}, 4),
            "parallel.expert = 4 does not divide data x tensor / expert_tensor = 2; 1 and 2 do");
  EXPECT_EQ(refusal({.expert_tensor = 8}, 4),
            "parallel.expert_tensor = 8 does not divide data x tensor = 4; 1, 2 and 4 do");
  EXPECT_EQ(refusal({.pipeline = 3}, 4), "parallel.pipeline = 3 does not divide the run's 4 ranks; 1, 2 and 4 do");
  EXPECT_EQ(refusal({.pipeline = 2, .tensor = 4}, 4),
            "parallel.tensor = 4 does not divide a stage's 2 ranks; 1 and 2 do");
  EXPECT_EQ(refusal({.data = 4, .pipeline = 2}, 4),
            "parallel.data = 4 with parallel.pipeline = 2 does not fit 4 ranks; 2 does, or 0 for all of them");
  EXPECT_EQ(refusal({.pipeline = 2, .expert = 4}, 4),
            "parallel.expert = 4 does not divide data x tensor = 2; 1 and 2 do");
  EXPECT_NE(refusal({.data = 4, .expert = 0}, 4), "accepted");
  EXPECT_NE(refusal({.data = 4, .expert = -2}, 4), "accepted");
}

}  // namespace
}  // namespace switchyard
