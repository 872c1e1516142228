#include "train/state.h"

namespace switchyard {
namespace {

const ProcessGroup& holders_of(Replicas replicas, const Mesh& mesh) {
  switch (replicas) {
    case Replicas::data: return *mesh.data;
    case Replicas::tokens: return *mesh.tokens;
    case Replicas::expert_data: return *mesh.expert_data;
  }
  throw Error("unknown replicas");
}

// Adds the slice box by box. The i-th tensor is written by the i-th of its holders, round and round.
void add_slice(std::vector<LogicalTensor>& tensors, std::size_t i, const std::string& name, const Tensor& value,
               const Shape& global_shape, const std::vector<Box>& boxes, Replicas replicas, const Mesh& mesh) {
  const ProcessGroup& holders = holders_of(replicas, mesh);
  const Tensor flat = value.view({value.numel()});
  std::int64_t begin = 0;
  for (const Box& box : boxes) {
    const std::int64_t end = begin + box.shape.numel();
    tensors.push_back({.name = name,
                       .local = flat.rows(begin, end).view(box.shape),
                       .global_shape = global_shape,
                       .origin = box.origin,
                       .writer = i % static_cast<std::size_t>(holders.size()) == std::size_t(holders.rank())});
    begin = end;
  }
}

}  // namespace

std::vector<LogicalTensor> logical_tensors(const Parameters& parameters, const Mesh& mesh) {
  std::vector<LogicalTensor> tensors;
  std::size_t i = 0;
  for (const Parameter& p : parameters)
    add_slice(tensors, i++, p.name, p.variable.value(), p.global_shape, p.boxes, p.replicas, mesh);
  return tensors;
}

std::vector<LogicalTensor> logical_tensors(const Parameters& parameters, const AdamW& optimizer, const Mesh& mesh) {
  std::vector<LogicalTensor> tensors = logical_tensors(parameters, mesh);
  std::size_t i = parameters.size();
  for (const OptimizerState& s : optimizer.states())
    add_slice(tensors, i++, s.name, s.value, s.global_shape, s.boxes, s.replicas, mesh);
  return tensors;
}

}  // namespace switchyard
