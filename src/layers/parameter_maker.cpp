#include "layers/parameter_maker.h"

#include <algorithm>

#include "tensor/philox.h"

namespace switchyard {
namespace {

// Whether b follows a on one axis, before which both have extent 1: then the two, one after the other, are one box.
bool continues(const Box& a, const Box& b) {
  int axis = 0;
  while (axis < a.shape.rank() - 1 && a.shape[axis] == 1 &&
         a.origin[static_cast<std::size_t>(axis)] == b.origin[static_cast<std::size_t>(axis)] && b.shape[axis] == 1)
    ++axis;
  Box next = a;
  next.origin[static_cast<std::size_t>(axis)] += a.shape[axis];
  next.shape = next.shape.with(axis, b.shape[axis]);
  return next == b;
}

Box both(const Box& a, const Box& b) {
  for (int axis = 0; axis < a.shape.rank(); ++axis)
    if (a.origin[static_cast<std::size_t>(axis)] != b.origin[static_cast<std::size_t>(axis)])
      return {a.origin, a.shape.with(axis, a.shape[axis] + b.shape[axis])};
  throw Error("two equal boxes");
}

// The same boxes, those that continue one another in memory and in the tensor made one.
std::vector<Box> merged(const std::vector<Box>& boxes) {
  std::vector<Box> out;
  for (Box box : boxes) {
    for (; !out.empty() && continues(out.back(), box); out.pop_back()) box = both(out.back(), box);
    out.push_back(box);
  }
  return out;
}

}  // namespace

Tensor ParameterMaker::normal(const Parameter& parameter, Shape local, Init init) const {
  Tensor host = Tensor::empty(local, DType::f32, Device{}, Memory::parameters);
  const PhiloxKey key = philox_key(seed_, "init " + parameter.name);
  float* x = host.data<float>();
  for (const Box& box : parameter.boxes) {
    const std::int64_t width = box.shape[-1], lines = box.shape.numel() / std::max<std::int64_t>(width, 1);
#pragma omp parallel for
    for (std::int64_t line = 0; line < lines; ++line) {
      const std::int64_t start = start_of_line(box, parameter.global_shape, line);
      for (std::int64_t i = 0; i < width; ++i)
        x[line * width + i] =
            static_cast<float>(init.std * switchyard::normal(key, static_cast<std::uint64_t>(start + i), init.limit));
    }
    x += box.shape.numel();
  }
  SY_CHECK(x == host.data<float>() + host.numel(), parameter.name, ": its boxes do not fill ", local);
  return host;
}

Variable ParameterMaker::add(Parameter parameter, const Tensor& host) {
  parameter.variable = Variable(to_device(host, device_), true);
  parameters_.push_back(std::move(parameter));
  return parameters_.back().variable;
}

Variable ParameterMaker::matrix(std::string name, Shape shape, Init init, Decay decay) {
  Parameter p{.name = std::move(name),
              .variable = {},
              .global_shape = shape,
              .boxes = {{{}, shape}},
              .replicas = Replicas::tokens,
              .decay = decay};
  const Tensor host = normal(p, shape, init);
  return add(std::move(p), host);
}

Variable ParameterMaker::ones(std::string name, Shape shape) {
  Tensor host = Tensor::empty(shape, DType::f32, Device{}, Memory::parameters);
  std::fill_n(host.data<float>(), host.numel(), 1.0f);
  return add({.name = std::move(name),
              .variable = {},
              .global_shape = shape,
              .boxes = {{{}, shape}},
              .replicas = Replicas::tokens,
              .decay = Decay::no},
             host);
}

Variable ParameterMaker::part(std::string name, Shape whole, std::vector<Box> boxes, Shape local, Init init,
                              Decay decay, Replicas replicas, Reads reads) {
  Parameter p{.name = std::move(name),
              .variable = {},
              .global_shape = whole,
              .boxes = merged(boxes),
              .replicas = replicas,
              .reads = reads,
              .decay = decay};
  const Tensor host = normal(p, local, init);
  return add(std::move(p), host);
}

Variable ParameterMaker::experts(std::string name, Shape whole, std::vector<Box> boxes, Shape local, Init init) {
  Parameter p{.name = std::move(name),
              .variable = {},
              .global_shape = whole,
              .boxes = merged(boxes),
              .replicas = Replicas::expert_data,
              .reads = Reads::rows};
  const Tensor host = normal(p, local, init);
  return add(std::move(p), host);
}

}  // namespace switchyard
