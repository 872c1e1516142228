#pragma once

#include <array>
#include <string>
#include <vector>

#include "autograd/variable.h"

namespace switchyard {

// Which ranks hold the same slice of a parameter, and so sum its gradient.
enum class Replicas { data, expert_data };
enum class Decay : bool { no, yes };

// Where a rank's slice lies in the logical tensor: the first index on each axis. The slice's extent is its own shape.
using Origin = std::array<std::int64_t, Shape::kMaxRank>;

// One learnt tensor: a name that is the same on every layout, and this rank's slice of it.
struct Parameter {
  std::string name;   // "model.layers.1.mlp.experts.gate_up_proj"
  Variable variable;  // f32 master and f32 gradient of the slice
  Shape global_shape;
  Origin origin{};
  Replicas replicas = Replicas::data;
  Decay decay = Decay::yes;
};

using Parameters = std::vector<Parameter>;

}  // namespace switchyard
