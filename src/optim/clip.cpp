#include "optim/clip.h"

#include <cmath>

#include "tensor/kernels.h"

namespace switchyard {

GradientNorm gradient_norm(const Parameters& parameters, Mesh& mesh, double clip) {
  SY_CHECK(!parameters.empty(), "gradient_norm: no parameters");
  SY_CHECK(clip >= 0, "gradient_norm: clip ", clip);
  const Device device = parameters[0].variable.device();

  const bool counts_whole = mesh.tensor->rank() == 0;
  std::vector<Tensor> dense, experts;
  for (const Parameter& p : parameters) {
    if (!p.variable.grad() || (p.replicas == Replicas::tokens && !counts_whole)) continue;
    (p.replicas == Replicas::expert_data ? experts : dense).push_back(p.variable.grad());
  }

  const Tensor squares_2 = Tensor::empty({2}, DType::f32, device);
  Tensor dense_1 = squares_2.rows(0, 1), experts_1 = squares_2.rows(1, 2);
  kernels(device).sum_squares(dense_1, dense);
  kernels(device).sum_squares(experts_1, experts);
  mesh.tensor->all_reduce(dense_1, Reduce::sum);
  mesh.experts->all_reduce(experts_1, Reduce::sum);

  GradientNorm result{.squares_2 = squares_2, .grad_scale_1 = Tensor::empty({1}, DType::f32, device)};
  kernels(device).clip_factor(result.grad_scale_1, squares_2, static_cast<float>(clip));
  return result;
}

double GradientNorm::norm() const {
  const Tensor host = to_device(squares_2, Device{});
  return std::sqrt(static_cast<double>(host.data<float>()[0]) + host.data<float>()[1]);
}

}  // namespace switchyard
