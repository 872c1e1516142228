#include "moe/step_load.h"

#include <limits>

#include "tensor/kernels.h"

namespace switchyard {

void StepLoad::set(std::int64_t step, std::int64_t first_token, Tensor load) {
  if (step != step_) parts_.clear();
  step_ = step;
  parts_[first_token] = std::move(load);
}

StepLoad::Sum StepLoad::up_to(std::int64_t first_token) const {
  Sum sum;
  for (const auto& [first, load] : parts_) {
    if (first > first_token) break;
    if (!sum.load) sum.load = Tensor::zeros(load.shape(), load.dtype(), load.device());
    kernels(load.device()).add(sum.load, load);
    ++sum.parts;
  }
  return sum;
}

StepLoad::Sum StepLoad::all() const { return up_to(std::numeric_limits<std::int64_t>::max()); }

}  // namespace switchyard
