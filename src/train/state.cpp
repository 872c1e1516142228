#include "train/state.h"

#include "train/config_reader.h"

namespace switchyard {
namespace {

// Whether this rank writes the i-th tensor: its holders take turns.
bool is_writer(std::size_t i, Replicas replicas, const Mesh& mesh) {
  const auto is_turn_of = [i](const ProcessGroup& holders) {
    return i % static_cast<std::size_t>(holders.size()) == static_cast<std::size_t>(holders.rank());
  };
  switch (replicas) {
    case Replicas::data: return is_turn_of(*mesh.data);
    case Replicas::tokens: return is_turn_of(*mesh.tokens);
    case Replicas::expert_data: return is_turn_of(*mesh.expert_data);
    case Replicas::ends: return mesh.ends->rank() == 0;  // which tensor is the i-th differs among its holders
    case Replicas::none: return true;
  }
  throw Error("unknown replicas");
}

// Whether of the ranks with different cuts of what has these replicas this is the first.
bool has_first_cut(Replicas replicas, const Mesh& mesh) {
  switch (replicas) {
    case Replicas::data:
    case Replicas::ends: return mesh.tensor->rank() == 0;
    case Replicas::expert_data: return mesh.expert_tensor->rank() == 0;
    case Replicas::tokens:
    case Replicas::none: return true;
  }
  throw Error("unknown replicas");
}

// Adds the slice box by box.
void add_slice(std::vector<LogicalTensor>& tensors, const std::string& name, const Tensor& value,
               const Shape& global_shape, const std::vector<Box>& boxes, bool writer) {
  const Tensor flat = value.view({value.numel()});
  std::int64_t begin = 0;
  for (const Box& box : boxes) {
    const std::int64_t end = begin + box.shape.numel();
    tensors.push_back({.name = name,
                       .local = flat.rows(begin, end).view(box.shape),
                       .global_shape = global_shape,
                       .origin = box.origin,
                       .writer = writer});
    begin = end;
  }
}

}  // namespace

std::vector<LogicalTensor> logical_tensors(const Parameters& parameters, const Mesh& mesh) {
  std::vector<LogicalTensor> tensors;
  std::size_t i = 0;
  for (const Parameter& p : parameters)
    add_slice(tensors, p.name, p.variable.value(), p.global_shape, p.boxes, is_writer(i++, p.replicas, mesh));
  return tensors;
}

std::vector<LogicalTensor> logical_tensors(const std::vector<NamedState>& states, const Mesh& mesh) {
  std::vector<LogicalTensor> tensors;
  for (const NamedState& state : states)
    tensors.push_back({.name = state.name,
                       .local = state.value,
                       .global_shape = state.value.shape(),
                       .writer = mesh.tokens->rank() == 0});
  return tensors;
}

std::vector<LogicalTensor> logical_tensors(const Parameters& parameters, const Optimizer& optimizer, const Mesh& mesh) {
  std::vector<LogicalTensor> tensors = logical_tensors(parameters, mesh);
  std::size_t i = 0;
  for (const OptimizerState& s : optimizer.states())
    add_slice(tensors, s.name, s.value, s.global_shape, s.boxes,
              is_writer(i++, s.replicas, mesh) && (s.is_cut || has_first_cut(s.replicas, mesh)));
  return tensors;
}

void require_same_optimizer(const Checkpoint& checkpoint, const OptimConfig& mine) {
  const auto name = [](const OptimConfig& optim) {
    std::string kind = optim.kind == OptimKind::adamw ? "adamw" : "adafactor";
    return optim.kind == OptimKind::adamw ? kind : kind + (optim.beta1 > 0 ? " with" : " without") + " a first moment";
  };
  const OptimConfig theirs =
      read_config(checkpoint.state.configuration, (checkpoint.path / "manifest.json").string()).optim;
  SY_REQUIRE(name(theirs) == name(mine), Fault::usage, checkpoint.path.string(), " was trained with ", name(theirs),
             ", and optim.kind and optim.beta1 ask for ", name(mine), "; use the same, or another run.dir");
}

}  // namespace switchyard
