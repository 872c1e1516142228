#pragma once

#include "autograd/parameter.h"
#include "grad_check.h"

namespace switchyard::test {

// What a rank's slice holds of the logical tensor, box by box.
inline Tensor slice_of(const Tensor& whole, const Parameter& p) {
  std::vector<float> values;
  for (const Box& box : p.boxes)
    for (std::int64_t i = 0; i < box.shape.numel(); ++i) {
      std::int64_t place = 0, stride = 1, rest = i;
      for (int axis = box.shape.rank() - 1; axis >= 0; --axis) {
        place += (box.origin[std::size_t(axis)] + rest % box.shape[axis]) * stride;
        rest /= box.shape[axis];
        stride *= whole.shape()[axis];
      }
      values.push_back(whole.data<float>()[place]);
    }
  return floats(p.variable.shape(), values);
}

}  // namespace switchyard::test
