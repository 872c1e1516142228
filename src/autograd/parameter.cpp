#include "autograd/parameter.h"

namespace switchyard {

Box cut(const Box& whole, int axis, std::int64_t begin, std::int64_t end) {
  Box box{whole.origin, whole.shape.with(axis, end - begin)};
  box.origin[static_cast<std::size_t>(axis)] += begin;
  return box;
}

}  // namespace switchyard
