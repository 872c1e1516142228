#pragma once

#include "autograd/parameter.h"
#include "grad_check.h"

namespace switchyard::test {

// What a rank's slice holds of the logical tensor, box by box.
inline Tensor slice_of(const Tensor& whole, const Parameter& p) {
  std::vector<float> values;
  for (const Box& box : p.boxes)
    for_each_index(box, whole.shape(), [&](std::int64_t i) { values.push_back(whole.data<float>()[i]); });
  return floats(p.variable.shape(), values);
}

}  // namespace switchyard::test
