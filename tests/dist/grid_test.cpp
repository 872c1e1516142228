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

// 200 layouts: along either expert axis the groups cover every rank once, the peers of a peer are the same group, the
// coordinate counts the group's ranks in order, and a row and a column meet in one rank.
TEST(Layout, AxesPartitionTheWorld) {
  for (unsigned i = 0; i < 200; ++i) {
    const auto bits = philox({7, 0}, i);
    const int expert = 1 + static_cast<int>(bits[0] % 8), copies = 1 + static_cast<int>(bits[1] % 8);
    const int world = expert * copies;
    const Layout layout({.data = bits[2] % 2 ? world : 0, .expert = expert}, world);
    ASSERT_EQ(layout.dense.size(), world);
    ASSERT_EQ(layout.expert.size(), world);
    for (auto [grid, axis] :
         {std::pair{&layout.dense, Axis::dp}, {&layout.expert, Axis::edp}, {&layout.expert, Axis::ep}}) {
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
      ASSERT_EQ(seen, std::vector<int>(static_cast<std::size_t>(world), 1))
          << axis << " of " << copies << 'x' << expert;
    }
    for (int rank = 0; rank < world; ++rank) {
      const auto row = layout.expert.peers(rank, {Axis::ep}), column = layout.expert.peers(rank, {Axis::edp});
      ASSERT_EQ(row.back() - row.front(), expert - 1) << "experts spread over neighbours";
      std::vector<int> both;
      std::ranges::set_intersection(row, column, std::back_inserter(both));
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
            "parallel.expert = 3 does not divide parallel.data = 4; 1, 2 and 4 do");
  EXPECT_EQ(refusal({.data = 0, .expert = 7}, 96),
            "parallel.expert = 7 does not divide parallel.data = 96; 3, 4, 6 and 8 do");
  EXPECT_EQ(refusal({.data = 1, .expert = 2}, 1), "parallel.expert = 2 does not divide parallel.data = 1; 1 does");
  EXPECT_EQ(refusal({.data = 3}, 4), "parallel.data = 3 does not fit 4 ranks; 4 does, or 0 for all of them");
  EXPECT_EQ(refusal({.data = 2}, 1), "parallel.data = 2 does not fit 1 rank; 1 does, or 0 for all of them");
  EXPECT_NE(refusal({.data = 4, .expert = 0}, 4), "accepted");
  EXPECT_NE(refusal({.data = 4, .expert = -2}, 4), "accepted");
}

}  // namespace
}  // namespace switchyard
