#include "autograd/parameter.h"

#include <algorithm>

namespace switchyard {
namespace {

// Whole steps along the first axis that has several, and what is cut off before and behind them.
void add_flat(std::vector<Box>& out, const Box& box, std::int64_t begin, std::int64_t end) {
  if (begin >= end) return;
  int axis = 0;
  while (axis < box.shape.rank() - 1 && box.shape[axis] == 1) ++axis;
  const std::int64_t step = box.shape.numel() / box.shape[axis], first = (begin + step - 1) / step, last = end / step;
  const auto add_part_of = [&](std::int64_t i, std::int64_t from, std::int64_t to) {
    add_flat(out, cut(box, axis, i, i + 1), from - i * step, to - i * step);
  };
  if (first > last) return add_part_of(last, begin, end);
  if (begin < first * step) add_part_of(first - 1, begin, first * step);
  if (first < last) out.push_back(cut(box, axis, first, last));
  if (last * step < end) add_part_of(last, last * step, end);
}

}  // namespace

Box cut(const Box& whole, int axis, std::int64_t begin, std::int64_t end) {
  Box box{whole.origin, whole.shape.with(axis, end - begin)};
  box.origin[static_cast<std::size_t>(axis)] += begin;
  return box;
}

std::vector<Box> cut_flat(const std::vector<Box>& boxes, std::int64_t begin, std::int64_t end) {
  std::vector<Box> out;
  for (const Box& box : boxes) {
    const std::int64_t numel = box.shape.numel();
    add_flat(out, box, std::max<std::int64_t>(begin, 0), std::min(end, numel));
    begin -= numel;
    end -= numel;
  }
  return out;
}

std::int64_t start_of_line(const Box& box, const Shape& whole, std::int64_t line) {
  const int last = whole.rank() - 1;
  std::int64_t start = box.origin[static_cast<std::size_t>(last)], stride = whole[last];
  for (int axis = last - 1; axis >= 0; --axis) {
    start += (box.origin[static_cast<std::size_t>(axis)] + line % box.shape[axis]) * stride;
    line /= box.shape[axis];
    stride *= whole[axis];
  }
  return start;
}

}  // namespace switchyard
