#pragma once

#include <vector>

#include "autograd/parameter.h"
#include "dist/grid.h"
#include "model/config.h"
#include "model/stages.h"
#include "moe/config.h"

namespace switchyard {

// A parameter as its sizes tell of it.
struct HeldParameter {
  std::int64_t block;  // -1: before the first one; n_layers: behind the last
  Shape shape;
  Replicas replicas = Replicas::tokens;
  Reads reads = Reads::f32;
  bool multiplies = false;  // a matrix that products of rows read, so that it may have a compute copy
  Shape matrices{};         // the same with its last two axes whole, of which the rank may hold a part
};

// What a rank holds of the stage, in the order of Transformer::parameters(). The configurations are resolved and fit
// the layout. Only the number of words depends on which of the tensor ranks it is.
std::vector<HeldParameter> held_parameters(const ModelConfig& model, const MoeConfig& moe,
                                           const ParallelConfig& parallel, const Stage& stage, int tensor_rank);

}  // namespace switchyard
