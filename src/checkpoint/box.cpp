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
  std::vector<Box> sorted(boxes.begin(), boxes.end());
  std::ranges::sort(sorted, {}, &Box::origin);
  std::int64_t elements = 0;
  for (const Box& box : sorted) {
    if (box.shape.rank() != shape.rank()) return text("a slice of ", box.shape.rank(), " dimensions of ", shape);
    for (int d = 0; d < shape.rank(); ++d) {
      const std::int64_t begin = box.origin[static_cast<std::size_t>(d)];
      if (begin < 0 || box.shape[d] < 1 || begin + box.shape[d] > shape[d])
        return text("slice ", describe(box), " does not lie within ", shape);
    }
    elements += box.shape.numel();
  }
  // Only slices that begin before this one's last row can touch it, and they follow it in the order of first rows.
  for (std::size_t i = 0; i < sorted.size(); ++i)
    for (std::size_t j = i + 1; j < sorted.size() && sorted[j].origin[0] < sorted[i].origin[0] + sorted[i].shape[0];
         ++j)
      if (const auto both = intersect(sorted[i], sorted[j])) return text("two slices hold ", describe(*both));
  if (elements != shape.numel()) return text("slices hold ", elements, " of its ", shape.numel(), " elements");
  return "";
}

}  // namespace switchyard
