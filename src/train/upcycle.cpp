#include "train/upcycle.h"

#include "model/placement.h"
#include "train/config_reader.h"
#include "train/scalar.h"

namespace switchyard {
namespace {

constexpr std::string_view kExperts = ".mlp.experts.", kSharedExperts = ".mlp.shared_experts.", kRouter = ".mlp.gate.",
                           kOptimizer = "optimizer.";

// Whether the dense model has nothing for it.
bool is_new(const LogicalTensor& tensor) {
  return tensor.name.starts_with(kOptimizer) || tensor.name.find(kRouter) != std::string::npos ||
         tensor.name.find(kSharedExperts) != std::string::npos;
}

// A line for each key of the section that the two differ in. How weights were drawn does not matter.
std::string differences(ModelConfig dense, ModelConfig wanted) {
  dense.init_std = wanted.init_std;
  const Section a = describe(dense), b = describe(wanted);
  std::string lines;
  for (std::size_t i = 0; i < a.fields.size(); ++i)
    if (value_text(a.fields[i]) != value_text(b.fields[i]))
      lines += text("\n  model.", a.fields[i].name, " is ", value_text(a.fields[i]), " there and ",
                    value_text(b.fields[i]), " here");
  return lines;
}

// The slice without its first axis: one matrix of a stack.
LogicalTensor matrix(const LogicalTensor& stack, std::int64_t i, std::string name) {
  const Shape &local = stack.local.shape(), &global = stack.global_shape;
  const Shape one{local[1], local[2]};
  return {.name = std::move(name),
          .local = stack.local.rows(i, i + 1).view(one),
          .global_shape = {global[1], global[2]},
          .origin = {stack.origin[1], stack.origin[2]}};
}

// What to read of the dense checkpoint, and where to: "….mlp.gate_up_proj.weight" into each matrix of
// "….mlp.experts.gate_up_proj".
std::vector<LogicalTensor> sources(const std::vector<LogicalTensor>& tensors) {
  std::vector<LogicalTensor> into;
  for (const LogicalTensor& tensor : tensors) {
    if (is_new(tensor)) continue;
    const std::size_t at = tensor.name.find(kExperts);
    if (at == std::string::npos) {
      into.push_back(tensor);
      continue;
    }
    const std::string name = tensor.name.substr(0, at) + ".mlp." + tensor.name.substr(at + kExperts.size()) + ".weight";
    for (std::int64_t e = 0; e < tensor.local.dim(0); ++e) into.push_back(matrix(tensor, e, name));
  }
  return into;
}

}  // namespace

void require_dense_counterpart(const Checkpoint& dense, const Config& config) {
  const std::string path = dense.path.string();
  const Config theirs = read_config(dense.state.configuration, path + "/manifest.json");
  SY_REQUIRE(theirs.moe.experts == 0, Fault::usage, path, ": has experts already; wanted a dense model");
  const ModelConfig model = resolved(config.model);
  const std::string differ = differences(resolved(theirs.model), model);
  SY_REQUIRE(differ.empty(), Fault::usage, path, ": is another model:", differ);
  SY_REQUIRE(resolved(config.moe, model, config.train.seq_len).activation == model.activation, Fault::usage,
             "moe.activation: another than model.activation, but experts that begin as copies of dense feed-forward ",
             "layers have these layers' activation; set it to auto");
}

void upcycle(const Found& dense, Learner& learner, ProcessGroup& world) {
  const std::vector<LogicalTensor> tensors = learner.tensors();
  std::vector<LogicalTensor> into = sources(tensors);
  load_checkpoint(dense, into, world, Unread::allow);
  for (LogicalTensor tensor : tensors)
    if (tensor.name.ends_with(text(kSharedExperts, "down_proj.weight")) && !tensor.name.starts_with(kOptimizer))
      kernels(tensor.local.device()).zero(tensor.local);
  learner.tensors_changed();
}

}  // namespace switchyard
