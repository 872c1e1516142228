#pragma once

#include "autograd/parameter.h"
#include "dist/mesh.h"

namespace switchyard {

// The Euclidean norm of all gradients of the model, and what to multiply them by so that it is at most `clip`.
struct GradientNorm {
  Tensor squares_2;  // f32, on the parameters' device: the squared norms of dense and of expert gradients
  Tensor
      grad_scale_1;  // f32, there: min(1, clip / (norm + 1e-6)), or 1 for a clip of 0; a NaN where norm is not finite

  double norm() const;  // read from the device; not finite where a gradient is not
};

// Counts each element of each parameter once, whoever holds it: squares are summed over the ranks that dense layers are
// cut over, with the parameters that are whole everywhere on the first of them only, and over the ranks that the
// experts are spread over; never over copies. Call it after the gradients were summed over replicas, on every rank: two
// numbers travel. All ranks get the same bits. A parameter without a gradient counts as zeros.
GradientNorm gradient_norm(const Parameters& parameters, Mesh& mesh, double clip);

}  // namespace switchyard
