#include "autograd/parameter.h"

namespace switchyard {

Box cut(const Box& whole, int axis, std::int64_t begin, std::int64_t end) {
  Box box{whole.origin, whole.shape.with(axis, end - begin)};
  box.origin[static_cast<std::size_t>(axis)] += begin;
  return box;
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
