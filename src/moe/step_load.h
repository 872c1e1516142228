#pragma once

#include <map>

#include "tensor/tensor.h"

namespace switchyard {

// Something that every micro-batch of a step adds up to, f32, of one shape: kept by micro-batch, so that one that is
// computed again in backward counts once.
class StepLoad {
 public:
  // Of the micro-batch whose first token is `first_token`; a new step begins anew.
  void set(std::int64_t step, std::int64_t first_token, Tensor load);
  // Sum over the step's micro-batches up to that one, all for a last one left out, and how many they are.
  struct Sum {
    Tensor load;
    std::int64_t parts = 0;
  };
  Sum up_to(std::int64_t first_token) const;
  Sum all() const;

 private:
  std::int64_t step_ = -1;
  std::map<std::int64_t, Tensor> parts_;
};

}  // namespace switchyard
