#include "layers/parameter_maker.h"

#include <algorithm>

#include "tensor/philox.h"

namespace switchyard {

Variable ParameterMaker::normal(Parameter parameter, Shape local, Init init) {
  Tensor host = Tensor::empty(local, DType::f32, Device{}, Memory::parameters);
  const PhiloxKey key = philox_key(seed_, "init " + parameter.name);
  const std::int64_t first = parameter.origin[0] * (parameter.global_shape.numel() / parameter.global_shape[0]);
  float* x = host.data<float>();
#pragma omp parallel for
  for (std::int64_t i = 0; i < host.numel(); ++i)
    x[i] = static_cast<float>(init.std * switchyard::normal(key, static_cast<std::uint64_t>(first + i), init.limit));
  parameter.variable = Variable(to_device(host, device_), true);
  parameters_.push_back(std::move(parameter));
  return parameters_.back().variable;
}

Variable ParameterMaker::matrix(std::string name, Shape shape, Init init, Decay decay) {
  return normal({.name = std::move(name), .variable = {}, .global_shape = shape, .decay = decay}, shape, init);
}

Variable ParameterMaker::ones(std::string name, Shape shape) {
  Tensor host = Tensor::empty(shape, DType::f32, Device{}, Memory::parameters);
  std::fill_n(host.data<float>(), host.numel(), 1.0f);
  parameters_.push_back({.name = std::move(name),
                         .variable = Variable(to_device(host, device_), true),
                         .global_shape = shape,
                         .decay = Decay::no});
  return parameters_.back().variable;
}

Variable ParameterMaker::experts(std::string name, Shape global_shape, std::int64_t first, std::int64_t count,
                                 Init init) {
  return normal({.name = std::move(name),
                 .variable = {},
                 .global_shape = global_shape,
                 .origin = {first},
                 .replicas = Replicas::expert_data},
                global_shape.with(0, count), init);
}

}  // namespace switchyard
