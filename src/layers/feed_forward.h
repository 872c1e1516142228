#pragma once

#include <string>

#include "dist/mesh.h"
#include "layers/parameter_maker.h"
#include "tensor/kernels.h"

namespace switchyard {

// y = down(activate(up(x))); the gated activations have a fused gate-and-up projection. No biases. d_ff is cut over the
// tensor group (Shoeybi et al., arXiv 1909.08053, section 3): each rank gathers all rows, computes its part of the
// width and gets its own rows of the sum back.
class FeedForward {
 public:
  // d_ff divides over the tensor group. The mesh outlives the layer.
  FeedForward(std::int64_t d_model, std::int64_t d_ff, Activation activation, const std::string& name, Init in,
              Init out, Mesh& mesh, ParameterMaker& make);

  // x: this rank's rows (T, d_model) -> the same shape
  Variable operator()(const Variable& x_TD) const;

 private:
  Activation activation_;
  ProcessGroup& tensor_;
  Variable up_, down_;
};

// "gate_up_proj" (gate rows first) where the activation is gated, else "up_proj", and its rows for a width of d_ff.
struct UpProjection {
  const char* name;
  std::int64_t rows;
};
UpProjection up_projection(Activation activation, std::int64_t d_ff);
// Part `rank` of `ranks` of the up projection's rows in `whole`, whose axis `axis` they lie on: of each half where
// gated.
std::vector<Box> up_part(const Box& whole, int axis, Activation activation, int rank, int ranks);

}  // namespace switchyard
