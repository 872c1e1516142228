#pragma once

#include <string>

#include "autograd/parameter.h"

namespace switchyard {

// Initial values: a normal distribution, cut at `limit` deviations.
struct Init {
  double std = 0.02;
  double limit = 3;
};

// Makes a model's parameters and lists them in order. Each element is a pure function of the seed, the parameter's name
// and the element's place in the logical tensor, so that every layout starts from the same weights.
class ParameterMaker {
 public:
  ParameterMaker(std::uint64_t seed, Device device) : seed_(seed), device_(device) {}

  Variable matrix(std::string name, Shape shape, Init init, Decay decay = Decay::yes);
  Variable ones(std::string name, Shape shape);
  // This rank's experts [first, first + count) of a stack with one matrix an expert.
  Variable experts(std::string name, Shape global_shape, std::int64_t first, std::int64_t count, Init init);

  Parameters take() { return std::move(parameters_); }

 private:
  Variable normal(Parameter parameter, Shape local, Init init);

  std::uint64_t seed_;
  Device device_;
  Parameters parameters_;
};

}  // namespace switchyard
