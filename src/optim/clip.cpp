#include "optim/clip.h"

#include <cmath>

#include "tensor/kernels.h"

namespace switchyard {

GradientNorm gradient_norm(const Parameters& own, Device device, Mesh& mesh, double clip) {
  SY_CHECK(clip >= 0, "gradient_norm: clip ", clip);
  std::vector<Tensor> gradients;
  for (const Parameter& p : own)
    if (p.variable.grad()) gradients.push_back(p.variable.grad());

  GradientNorm result{.squares_1 = Tensor::empty({1}, DType::f32, device),
                      .grad_scale_1 = Tensor::empty({1}, DType::f32, device)};
  kernels(device).sum_squares(result.squares_1, gradients);
  mesh.world->all_reduce(result.squares_1, Reduce::sum);
  kernels(device).clip_factor(result.grad_scale_1, result.squares_1, static_cast<float>(clip));
  return result;
}

double GradientNorm::norm() const {
  return std::sqrt(static_cast<double>(to_device(squares_1, Device{}).data<float>()[0]));
}

}  // namespace switchyard
