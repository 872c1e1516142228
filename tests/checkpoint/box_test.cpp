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
  for (std::uint64_t trial = 0; trial < 500; ++trial) {
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

}  // namespace
}  // namespace switchyard
