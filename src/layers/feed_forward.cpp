#include "layers/feed_forward.h"

#include "autograd/ops.h"
#include "dist/collectives.h"

namespace switchyard {

UpProjection up_projection(Activation activation, std::int64_t d_ff) {
  return is_gated(activation) ? UpProjection{"gate_up_proj", 2 * d_ff} : UpProjection{"up_proj", d_ff};
}

std::vector<Box> up_part(const Box& whole, int axis, Activation activation, int rank, int ranks) {
  const int halves = is_gated(activation) ? 2 : 1;
  const std::int64_t d_ff = whole.shape[axis] / halves;
  SY_CHECK(d_ff % ranks == 0, "a feed-forward width of ", d_ff, " does not divide over ", ranks, " ranks");
  std::vector<Box> boxes;
  for (int half = 0; half < halves; ++half)
    boxes.push_back(cut(whole, axis, half * d_ff + d_ff / ranks * rank, half * d_ff + d_ff / ranks * (rank + 1)));
  return boxes;
}

FeedForward::FeedForward(std::int64_t d_model, std::int64_t d_ff, Activation activation, const std::string& name,
                         Init in, Init out, Mesh& mesh, ParameterMaker& make)
    : activation_(activation), tensor_(*mesh.tensor) {
  const int rank = tensor_.rank(), ranks = tensor_.size();
  const UpProjection up = up_projection(activation, d_ff);
  const Box whole_up{{}, {up.rows, d_model}}, whole_down{{}, {d_model, d_ff}};
  up_ = make.part(text(name, ".", up.name, ".weight"), whole_up.shape, up_part(whole_up, 0, activation, rank, ranks),
                  {up.rows / ranks, d_model}, in);
  const Box my_down = cut(whole_down, 1, d_ff / ranks * rank, d_ff / ranks * (rank + 1));
  down_ = make.part(name + ".down_proj.weight", whole_down.shape, {my_down}, my_down.shape, out);
}

Variable FeedForward::operator()(const Variable& x_TD) const {
  const Variable hidden_TF = activate(linear(gather_rows(x_TD, tensor_), up_), activation_);
  return sum_rows(linear(hidden_TF, down_), tensor_);
}

}  // namespace switchyard
