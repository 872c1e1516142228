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

  // Whole on every rank, and read in f32.
  Variable matrix(std::string name, Shape shape, Init init, Decay decay = Decay::yes);
  Variable ones(std::string name, Shape shape);
  // This rank's part of a matrix that tensor parallelism cuts, and of a stack of experts: `boxes` of the logical
  // tensor, one after the other, seen as `local`. Read in the type of rows, unless said otherwise.
  Variable part(std::string name, Shape whole, std::vector<Box> boxes, Shape local, Init init, Decay decay = Decay::yes,
                Replicas replicas = Replicas::data, Reads reads = Reads::rows);
  Variable experts(std::string name, Shape whole, std::vector<Box> boxes, Shape local, Init init);

  std::uint64_t seed() const { return seed_; }
  Device device() const { return device_; }
  Parameters take() { return std::move(parameters_); }

 private:
  Variable add(Parameter parameter, const Tensor& host);
  Tensor normal(const Parameter& parameter, Shape local, Init init) const;

  std::uint64_t seed_;
  Device device_;
  Parameters parameters_;
};

}  // namespace switchyard
