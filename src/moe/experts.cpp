#include "moe/experts.h"

#include "autograd/ops.h"
#include "layers/feed_forward.h"

namespace switchyard {

Experts::Experts(std::int64_t experts, std::int64_t d_model, std::int64_t d_ff, Activation activation,
                 const std::string& name, Init in, Init out, const Mesh& mesh, ParameterMaker& make)
    : activation_(activation), d_ff_(d_ff) {
  const Grid& grid = mesh.layout.expert;
  const int me = mesh.world->rank(), parts = grid.extent(Axis::etp), part = grid.coord(me, Axis::etp);
  first_feature_ = d_ff / parts * part;
  const std::int64_t local = experts / grid.extent(Axis::ep), first = local * grid.coord(me, Axis::ep);
  const UpProjection up = up_projection(activation, d_ff);
  const Box whole_up{{}, {experts, up.rows, d_model}}, whole_down{{}, {experts, d_model, d_ff}};
  std::vector<Box> my_up;
  for (std::int64_t e = first; e < first + local; ++e)
    for (const Box& box : up_part(cut(whole_up, 0, e, e + 1), 1, activation, part, parts)) my_up.push_back(box);
  const Box my_down = cut(cut(whole_down, 0, first, first + local), 2, d_ff / parts * part, d_ff / parts * (part + 1));
  up_ = make.experts(text(name, ".experts.", up.name), whole_up.shape, my_up, {local, up.rows / parts, d_model}, in);
  down_ = make.experts(name + ".experts.down_proj", whole_down.shape, {my_down}, my_down.shape, out);
}

Variable Experts::operator()(const Variable& rows_RD, const Tensor& offsets_e1, std::int64_t rows_each,
                             const Dropout& drop) const {
  Variable hidden_RF = activate(grouped_linear(rows_RD, up_, offsets_e1, rows_each), activation_);
  if (drop.rate > 0)
    hidden_RF = dropout(hidden_RF, drop.id_R, drop.order_R,
                        {.key = drop.key, .rate = drop.rate, .width = d_ff_, .first = first_feature_});
  return grouped_linear(hidden_RF, down_, offsets_e1, rows_each);
}

}  // namespace switchyard
