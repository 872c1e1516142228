#include "checkpoint/box.h"

#include <algorithm>
#include <vector>

namespace switchyard {
namespace {

std::string describe(const Box& box) {
  std::string words = "[";
  for (int i = 0; i < box.shape.rank(); ++i) {
    const std::int64_t begin = box.origin[static_cast<std::size_t>(i)];
    words += text(i ? ", " : "", begin, ":", begin + box.shape[i]);
  }
  return words + "]";
}

// A corner of boxes, and how many more of them count it up than down.
struct Mark {
  Origin corner{};
  int sign = 1;
};

// Adds the 2^d marks of a box: at each corner, minus for every axis on which it is the end.
void mark(const Box& box, int sign, std::vector<Mark>& marks) {
  for (unsigned ends = 0; ends < 1u << box.shape.rank(); ++ends) {
    Mark m{box.origin, sign};
    for (int axis = 0; axis < box.shape.rank(); ++axis)
      if (ends >> axis & 1) {
        m.corner[static_cast<std::size_t>(axis)] += box.shape[axis];
        m.sign = -m.sign;
      }
    marks.push_back(m);
  }
}

// Boxes hold each element of `shape` once when their indicator functions sum to its own. Differences along every axis
// turn an indicator into its box's marks and lose nothing, so the marks sum to those of `shape` then and only then.
bool is_partition(const Shape& shape, std::span<const Box> boxes) {
  std::vector<Mark> marks;
  marks.reserve((boxes.size() + 1) << shape.rank());
  for (const Box& box : boxes) mark(box, 1, marks);
  mark({{}, shape}, -1, marks);
  std::ranges::sort(marks, {}, &Mark::corner);
  for (std::size_t i = 0; i < marks.size();) {
    int sum = 0;
    for (const std::size_t first = i; i < marks.size() && marks[i].corner == marks[first].corner; ++i)
      sum += marks[i].sign;
    if (sum != 0) return false;
  }
  return true;
}

// What two of the boxes hold, as words; empty where none touch.
std::string overlap(std::span<const Box> boxes) {
  for (std::size_t i = 0; i < boxes.size(); ++i)
    for (std::size_t j = i + 1; j < boxes.size(); ++j)
      if (const auto both = intersect(boxes[i], boxes[j])) return describe(*both);
  return "";
}

}  // namespace

std::optional<Box> intersect(const Box& a, const Box& b) {
  SY_CHECK(a.shape.rank() == b.shape.rank(), "boxes of ", a.shape.rank(), " and ", b.shape.rank(), " dimensions");
  Box both{{}, a.shape};
  for (int i = 0; i < a.shape.rank(); ++i) {
    const auto axis = static_cast<std::size_t>(i);
    const std::int64_t begin = std::max(a.origin[axis], b.origin[axis]);
    const std::int64_t end = std::min(a.origin[axis] + a.shape[i], b.origin[axis] + b.shape[i]);
    if (begin >= end) return std::nullopt;
    both.origin[axis] = begin;
    both.shape = both.shape.with(i, end - begin);
  }
  return both;
}

std::string partition_problem(const Shape& shape, std::span<const Box> boxes) {
  std::int64_t elements = 0;
  for (const Box& box : boxes) {
    if (box.shape.rank() != shape.rank()) return text("a slice of ", box.shape.rank(), " dimensions of ", shape);
    for (int d = 0; d < shape.rank(); ++d) {
      const std::int64_t begin = box.origin[static_cast<std::size_t>(d)];
      if (begin < 0 || box.shape[d] < 1 || begin + box.shape[d] > shape[d])
        return text("slice ", describe(box), " does not lie within ", shape);
    }
    elements += box.shape.numel();
  }
  if (is_partition(shape, boxes)) return "";
  const std::string both = overlap(boxes);
  return both.empty() ? text("slices hold ", elements, " of its ", shape.numel(), " elements")
                      : text("two slices hold ", both);
}

}  // namespace switchyard
