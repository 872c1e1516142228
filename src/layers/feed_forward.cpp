#include "layers/feed_forward.h"

namespace switchyard {

UpProjection up_projection(Activation activation, std::int64_t d_ff) {
  return is_gated(activation) ? UpProjection{"gate_up_proj", 2 * d_ff} : UpProjection{"up_proj", d_ff};
}

FeedForward::FeedForward(std::int64_t d_model, std::int64_t d_ff, Activation activation, const std::string& name,
                         Init in, Init out, ParameterMaker& make)
    : activation_(activation) {
  const UpProjection up = up_projection(activation, d_ff);
  up_ = make.matrix(text(name, ".", up.name, ".weight"), {up.rows, d_model}, in);
  down_ = make.matrix(name + ".down_proj.weight", {d_model, d_ff}, out);
}

Variable FeedForward::operator()(const Variable& x_TD) const {
  return linear(activate(linear(x_TD, up_), activation_), down_);
}

}  // namespace switchyard
