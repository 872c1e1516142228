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

Variable Experts::operator()(const Variable& rows_RD, const Tensor& offsets_e1, std::int64_t rows_each) const {
  const Variable hidden_RF = activate(grouped_linear(rows_RD, up_, offsets_e1, rows_each), activation_);
  return grouped_linear(hidden_RF, down_, offsets_e1, rows_each);
}

}  // namespace switchyard
