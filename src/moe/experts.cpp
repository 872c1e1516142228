#include "moe/experts.h"

#include "layers/feed_forward.h"

namespace switchyard {

Experts::Experts(std::int64_t experts, std::int64_t d_model, std::int64_t d_ff, Activation activation,
                 const std::string& name, Init in, Init out, const ProcessGroup& group, ParameterMaker& make)
    : activation_(activation) {
  const std::int64_t local = experts / group.size(), first = local * group.rank();
  const UpProjection up = up_projection(activation, d_ff);
  up_ = make.experts(text(name, ".experts.", up.name), {experts, up.rows, d_model}, first, local, in);
  down_ = make.experts(name + ".experts.down_proj", {experts, d_model, d_ff}, first, local, out);
}

Variable Experts::operator()(const Variable& rows_RD, const Tensor& offsets_e1) const {
  return grouped_linear(activate(grouped_linear(rows_RD, up_, offsets_e1), activation_), down_, offsets_e1);
}

}  // namespace switchyard
