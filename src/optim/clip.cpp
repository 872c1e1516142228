#include "optim/clip.h"

#include <algorithm>
#include <cmath>

#include "tensor/kernels.h"

namespace switchyard {

GradientNorm gradient_norm(const Parameters& parameters, Mesh& mesh, double clip) {
  SY_CHECK(!parameters.empty(), "gradient_norm: no parameters");
  SY_CHECK(clip >= 0, "gradient_norm: clip ", clip);
  const Device device = parameters[0].variable.device();

  std::vector<Tensor> dense, experts;
  for (const Parameter& p : parameters)
    if (p.variable.grad()) (p.replicas == Replicas::data ? dense : experts).push_back(p.variable.grad());

  const Tensor squares_2 = Tensor::empty({2}, DType::f32, device);
  Tensor dense_1 = squares_2.rows(0, 1), experts_1 = squares_2.rows(1, 2);
  kernels(device).sum_squares(dense_1, dense);
  kernels(device).sum_squares(experts_1, experts);
  mesh.expert->all_reduce(experts_1, Reduce::sum);

  const Tensor host = to_device(squares_2, Device{});
  const double norm = std::sqrt(static_cast<double>(host.data<float>()[0]) + host.data<float>()[1]);
  const float scale = clip > 0 ? static_cast<float>(std::min(1.0, clip / (norm + 1e-6))) : 1.0f;
  return {.norm = norm, .grad_scale_1 = Tensor::of(std::span<const float>(&scale, 1), {1}, device)};
}

}  // namespace switchyard
