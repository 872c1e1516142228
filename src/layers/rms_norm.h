#pragma once

#include <string>

#include "autograd/ops.h"
#include "layers/parameter_maker.h"

namespace switchyard {

// Root-mean-square normalisation with a learnt gain (Zhang and Sennrich, 2019).
class RmsNorm {
 public:
  RmsNorm(std::int64_t d_model, float eps, const std::string& name, ParameterMaker& make)
      : gain_(make.ones(name + ".weight", {d_model})), eps_(eps) {}

  // Of a + b; b may be empty.
  AddNorm operator()(const Variable& a_TD, const Variable& b_TD) const {
    if (!b_TD) return {a_TD, rms_norm(a_TD, gain_, eps_)};
    return add_rms_norm(a_TD, b_TD, gain_, eps_);
  }

 private:
  Variable gain_;
  float eps_;
};

}  // namespace switchyard
