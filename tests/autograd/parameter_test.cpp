#include "autograd/parameter.h"

#include <gtest/gtest.h>

namespace switchyard {
namespace {

std::vector<std::int64_t> indices(const std::vector<Box>& boxes, const Shape& whole) {
  std::vector<std::int64_t> all;
  for (const Box& box : boxes) for_each_index(box, whole, [&](std::int64_t i) { all.push_back(i); });
  return all;
}

// Every range of what the boxes hold, beside the range of the list of its indices.
void expect_every_range(const std::vector<Box>& boxes, const Shape& whole) {
  const std::vector<std::int64_t> all = indices(boxes, whole);
  for (std::size_t begin = 0; begin <= all.size(); ++begin)
    for (std::size_t end = begin; end <= all.size(); ++end) {
      const std::vector<Box> part = cut_flat(boxes, std::int64_t(begin), std::int64_t(end));
      const std::vector<std::int64_t> expected(all.begin() + std::ptrdiff_t(begin), all.begin() + std::ptrdiff_t(end));
      ASSERT_EQ(indices(part, whole), expected) << begin << " to " << end;
      ASSERT_LE(part.size(), boxes.size() * std::size_t(2 * whole.rank() - 1)) << begin << " to " << end;
    }
}

TEST(CutFlat, IsTheRangeOfTheElements) {
  expect_every_range({{{}, {7}}}, {7});
  expect_every_range({{{}, {4, 5}}}, {4, 5});
  expect_every_range({{{2, 1}, {3, 4}}}, {6, 7});
  expect_every_range({{{}, {3, 2, 4}}}, {3, 2, 4});
  expect_every_range({{{0, 1, 2}, {2, 3, 3}}}, {2, 5, 6});
  expect_every_range({{{1, 0}, {1, 6}}}, {3, 6});
  expect_every_range({{{}, {2, 3}}, {{4, 0}, {1, 3}}, {{5, 0}, {0, 3}}, {{6, 1}, {3, 2}}}, {9, 3});
  expect_every_range({{{}, {0, 3}}}, {0, 3});
}

// As few as there can be.
TEST(CutFlat, KeepsWholeBoxesAndWholeSteps) {
  const std::vector<Box> whole{{{}, {4, 3, 5}}};
  EXPECT_EQ(cut_flat(whole, 0, 60), whole);
  EXPECT_EQ(cut_flat(whole, 15, 45), (std::vector<Box>{{{1, 0, 0}, {2, 3, 5}}}));
  EXPECT_EQ(cut_flat(whole, 17, 19), (std::vector<Box>{{{1, 0, 2}, {1, 1, 2}}}));
  EXPECT_EQ(cut_flat(whole, 20, 30), (std::vector<Box>{{{1, 1, 0}, {1, 2, 5}}}));
}

}  // namespace
}  // namespace switchyard
