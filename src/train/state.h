#pragma once

#include "checkpoint/checkpoint.h"
#include "dist/mesh.h"
#include "model/transformer.h"
#include "optim/optimizer.h"

namespace switchyard {

// The tensors of a run as a checkpoint names them: each parameter's f32 master under its own name. Of the ranks that
// hold the same slice one writes it; they take turns, so that each writes about as much.
std::vector<LogicalTensor> logical_tensors(const Parameters& parameters, const Mesh& mesh);
// The same for the model's states, which all ranks of its part of the mesh have whole.
std::vector<LogicalTensor> logical_tensors(const std::vector<NamedState>& states, const Mesh& mesh);
// Of parameters and the optimizer's states.
std::vector<LogicalTensor> logical_tensors(const Parameters& parameters, const Optimizer& optimizer, const Mesh& mesh);
// Error (Fault::usage) where the checkpoint's run had an optimizer that keeps other states.
void require_same_optimizer(const Checkpoint& checkpoint, const OptimConfig& mine);

}  // namespace switchyard
