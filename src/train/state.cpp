#include "train/state.h"

namespace switchyard {
namespace {

// The i-th tensor is written by the i-th of its holders, round and round.
bool is_writer(std::size_t i, Replicas replicas, const Mesh& mesh) {
  const ProcessGroup& holders = replicas == Replicas::data ? *mesh.data : *mesh.expert_data;
  return i % static_cast<std::size_t>(holders.size()) == static_cast<std::size_t>(holders.rank());
}

}  // namespace

std::vector<LogicalTensor> logical_tensors(const Parameters& parameters, const Mesh& mesh) {
  std::vector<LogicalTensor> tensors;
  for (const Parameter& p : parameters)
    tensors.push_back({.name = p.name,
                       .local = p.variable.value(),
                       .global_shape = p.global_shape,
                       .origin = p.origin,
                       .writer = is_writer(tensors.size(), p.replicas, mesh)});
  return tensors;
}

std::vector<LogicalTensor> logical_tensors(const Parameters& parameters, const AdamW& optimizer, const Mesh& mesh) {
  std::vector<LogicalTensor> tensors = logical_tensors(parameters, mesh);
  for (const OptimizerState& state : optimizer.states())
    tensors.push_back({.name = state.name,
                       .local = state.value,
                       .global_shape = state.global_shape,
                       .origin = state.origin,
                       .writer = is_writer(tensors.size(), state.replicas, mesh)});
  return tensors;
}

}  // namespace switchyard
