#pragma once

#include "autograd/parameter.h"
#include "dist/mesh.h"

namespace switchyard {

// The Euclidean norm of all gradients of the model, and what to multiply them by so that it is at most `clip`.
struct GradientNorm {
  Tensor squares_1;  // f32, on the parameters' device: the squared norm
  Tensor
      grad_scale_1;  // f32, there: min(1, clip / (norm + 1e-6)), or 1 for a clip of 0; a NaN where norm is not finite

  double norm() const;  // read from the device; not finite where a gradient is not
};

// `own` are this rank's parts of the model (Shards::own), so that each element of each parameter counts once, whoever
// holds it: squares are summed over all ranks. Call it after the gradients were summed over replicas, on every rank:
// one number travels. All ranks get the same bits. A parameter without a gradient counts as zeros.
GradientNorm gradient_norm(const Parameters& own, Device device, Mesh& mesh, double clip);

}  // namespace switchyard
