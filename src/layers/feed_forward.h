#pragma once

#include <string>

#include "autograd/ops.h"
#include "layers/parameter_maker.h"

namespace switchyard {

// y = down(activate(up(x))); the gated activations have a fused gate-and-up projection. No biases.
class FeedForward {
 public:
  FeedForward(std::int64_t d_model, std::int64_t d_ff, Activation activation, const std::string& name, Init in,
              Init out, ParameterMaker& make);

  Variable operator()(const Variable& x_TD) const;

 private:
  Activation activation_;
  Variable up_, down_;
};

// "gate_up_proj" (gate rows first) where the activation is gated, else "up_proj", and its rows for a width of d_ff.
struct UpProjection {
  const char* name;
  std::int64_t rows;
};
UpProjection up_projection(Activation activation, std::int64_t d_ff);

}  // namespace switchyard
