#include "checkpoint/box.h"

#include <gtest/gtest.h>

#include <vector>

#include "tensor/philox.h"

namespace switchyard {
namespace {

std::vector<int> marked(const Shape& shape, const Box& box) {  // rank 2: 1 where the box is
  std::vector<int> marks(static_cast<std::size_t>(shape.numel()));
  for (std::int64_t r = box.origin[0]; r < box.origin[0] + box.shape[0]; ++r)
    for (std::int64_t c = box.origin[1]; c < box.origin[1] + box.shape[1]; ++c)
      marks[static_cast<std::size_t>(r * shape[1] + c)] = 1;
  return marks;
}

TEST(Box, IntersectionIsTheCommonElements) {
  const Shape shape{6, 7};
  int touching = 0;
  for (std::uint32_t trial = 0; trial < 500; ++trial) {
    const auto a = philox({1, 2}, trial, 0), b = philox({1, 2}, trial, 1);
    const auto box = [&](const auto& bits) {
      const std::int64_t r = bits[0] % 6, c = bits[1] % 7;
      return Box{{r, c}, {1 + bits[2] % (6 - r), 1 + bits[3] % (7 - c)}};
    };
    std::vector<int> expected = marked(shape, box(a)), other = marked(shape, box(b));
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i] &= other[i];
    const auto both = intersect(box(a), box(b));
    touching += both.has_value();
    EXPECT_EQ(both ? marked(shape, *both) : std::vector<int>(expected.size()), expected) << "trial " << trial;
  }
  EXPECT_GT(touching, 100);
  EXPECT_LT(touching, 450);
}

TEST(Box, PartitionsAndWhatIsNone) {
  const Shape shape{4, 4};
  const auto problem = [&](std::vector<Box> boxes) { return partition_problem(shape, boxes); };
  const Box top{{0, 0}, {2, 4}}, left{{2, 0}, {2, 2}}, right{{2, 2}, {2, 2}};
  EXPECT_EQ(problem({{{}, {4, 4}}}), "");
  EXPECT_EQ(problem({right, top, left}), "");
  EXPECT_EQ(problem({top, left}), "slices hold 12 of its 16 elements");
  EXPECT_EQ(problem({}), "slices hold 0 of its 16 elements");
  EXPECT_EQ(problem({top, left, right, {{3, 3}, {1, 1}}}), "two slices hold [3:4, 3:4]");
  // as many elements as there are, but not the right ones
  EXPECT_EQ(problem({top, left, {{2, 1}, {2, 2}}}), "two slices hold [2:4, 1:2]");
  EXPECT_EQ(problem({top, left, {{2, 3}, {2, 2}}}), "slice [2:4, 3:5] does not lie within (4, 4)");
  EXPECT_EQ(problem({{{}, {16}}}), "a slice of 1 dimensions of (4, 4)");
}

// Random cuts of a block in two, again and again, are a partition; with any one box gone, twice or moved they are not.
TEST(Box, PartitionsOfManyBoxes) {
  const Shape shape{6, 8, 4};
  for (std::uint32_t trial = 0; trial < 50; ++trial) {
    std::vector<Box> boxes{{{}, shape}};
    for (std::uint64_t cut = 0; cut < 40; ++cut) {
      const auto bits = philox({trial, 3}, cut);
      Box& first = boxes[bits[0] % boxes.size()];
      const int axis = static_cast<int>(bits[1] % 3);
      if (first.shape[axis] < 2) continue;
      const std::int64_t at = 1 + bits[2] % (first.shape[axis] - 1);
      Box second = first;
      second.origin[static_cast<std::size_t>(axis)] += at;
      second.shape = second.shape.with(axis, first.shape[axis] - at);
      first.shape = first.shape.with(axis, at);
      boxes.push_back(second);
    }
    EXPECT_EQ(partition_problem(shape, boxes), "");
    const std::size_t one = philox({trial, 4}, 0)[0] % boxes.size();
    std::vector<Box> gone = boxes, twice = boxes, moved = boxes;
    gone.erase(gone.begin() + static_cast<std::ptrdiff_t>(one));
    twice.push_back(boxes[one]);
    for (std::int64_t& begin : moved[one].origin) begin = begin > 0 ? begin - 1 : 0;
    EXPECT_NE(partition_problem(shape, gone).find("slices hold "), std::string::npos);
    EXPECT_NE(partition_problem(shape, twice).find("two slices hold ["), std::string::npos);
    if (moved[one].origin != boxes[one].origin) {
      EXPECT_NE(partition_problem(shape, moved).find("two slices hold ["), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace switchyard
