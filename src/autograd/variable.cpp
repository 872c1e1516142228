#include "autograd/variable.h"

#include <algorithm>
#include <iterator>
#include <unordered_map>

#include "autograd/scope.h"
#include "tensor/kernels.h"

namespace switchyard {
namespace {

thread_local bool recording = true;
thread_local const char* scope = "";
thread_local std::int64_t recorded = 0;  // ops, on this thread

}  // namespace

struct Variable::Node {
  const char* op = "leaf";
  const char* scope = "";
  std::int64_t number = 0;  // among what its thread recorded
  Tensor value;
  Tensor grad;
  Tensor second_grad;  // of an op with two results: the second's gradient, left here, where the first's is
  Weight weight;
  bool requires_grad = false;
  bool spent = false;  // backward went through here and let go of the inputs
  std::vector<Variable> inputs;
  Backward backward;
  std::function<void(Variable&)> hook;
  std::function<void()> arrival;  // of the value, where nobody has waited for it

  // Takes a dying chain apart link by link; the default would recurse once per link.
  ~Node() {
    std::vector<Variable> dying = std::move(inputs);
    while (!dying.empty()) {
      const std::shared_ptr<Node> node = std::move(dying.back().node_);
      dying.pop_back();
      if (node && node.use_count() == 1) {
        node->backward = {};
        std::ranges::move(node->inputs, std::back_inserter(dying));
        node->inputs.clear();
      }
    }
  }
};

Variable::Variable(Tensor value, bool requires_grad) : node_(std::make_shared<Node>()) {
  node_->value = std::move(value);
  node_->requires_grad = requires_grad;
}

const Tensor& Variable::value() const {
  settle();
  return node_->value;
}
Tensor& Variable::value() {
  settle();
  return node_->value;
}
const Tensor& Variable::grad() const { return node_->grad; }
Tensor& Variable::grad() { return node_->grad; }
bool Variable::requires_grad() const { return node_ && node_->requires_grad; }
void Variable::zero_grad() { node_->grad = {}; }
void Variable::on_grad(std::function<void(Variable&)> hook) { node_->hook = std::move(hook); }

void Variable::accumulate(Tensor grad) {
  SY_CHECK(grad.shape() == shape(), node_->op, ": gradient is ", grad.shape(), ", value is ", shape());
  Tensor& sum = node_->grad;
  if (!sum) {
    sum = std::move(grad);
    return;
  }
  if (!sum.sole_owner()) {
    const Tensor shared = sum;
    sum = empty_like(shared);
    kernels(device()).copy(sum, shared);
  }
  kernels(device()).add(sum, grad);
}

const Weight& Variable::weight(DType dtype) const {
  settle();
  Weight& weight = node_->weight;
  // An f32 weight is the value itself, which a test may have replaced since.
  if (!weight || weight.dtype != dtype || dtype == DType::f32) weight = make_weight(node_->value, dtype);
  return weight;
}

Weight* Variable::compute_copy() const { return node_->weight ? &node_->weight : nullptr; }

void Variable::refresh_weight() {
  settle();
  if (node_->weight) refresh(node_->weight, node_->value);
}

void Variable::arrives(std::function<void()> wait) { node_->arrival = std::move(wait); }

void Variable::settle() const {
  if (!node_->arrival) return;
  std::exchange(node_->arrival, {})();
  if (node_->weight) refresh(node_->weight, node_->value);
}

Variable record(const char* op, Tensor value, std::vector<Variable> inputs, Backward backward) {
  Variable out(std::move(value));
  if (recording && std::ranges::any_of(inputs, &Variable::requires_grad)) {
    out.node_->op = op;
    out.node_->scope = scope;
    out.node_->number = ++recorded;
    out.node_->requires_grad = true;
    out.node_->inputs = std::move(inputs);
    out.node_->backward = std::move(backward);
  }
  return out;
}

// The second result is a node above the first, so that backward has gone through it when it reaches the first.
std::pair<Variable, Variable> record(const char* op, Tensor first, Tensor second, std::vector<Variable> inputs,
                                     BackwardOfTwo backward) {
  Variable below = record(op, std::move(first), std::move(inputs), {});
  Variable::Node* const node = below.node_.get();
  if (node->requires_grad)
    node->backward = [node, backward = std::move(backward)](const Tensor& dfirst) {
      return backward(dfirst, node->second_grad);
    };
  Variable above = record(op, std::move(second), {below}, [node](const Tensor& dsecond) -> Grads {
    node->second_grad = dsecond;
    return {{}};
  });
  return {std::move(below), std::move(above)};
}

void Variable::backward(const Tensor& dy) {
  std::vector<Variable> order{*this};
  std::unordered_map<Node*, int> uses;  // of each node that needs a gradient, by nodes of this graph
  for (std::size_t i = 0; i < order.size(); ++i) {
    const Node& node = *order[i].node_;
    SY_CHECK(!node.spent, node.op, ": an earlier backward() has used this part of the graph up");
    for (const Variable& input : node.inputs)
      if (input.requires_grad() && uses[input.node_.get()]++ == 0) order.push_back(input);
  }
  std::ranges::stable_sort(order, {}, [](const Variable& v) { return v.node_->number; });

  accumulate(dy);
  if (node_->inputs.empty() && node_->hook) node_->hook(*this);
  while (!order.empty()) {
    const Variable variable = std::move(order.back());
    order.pop_back();
    Node& node = *variable.node_;
    if (node.inputs.empty()) continue;  // a leaf keeps its gradient
    Grads grads;
    if (node.grad || node.second_grad) {
      const Scope within(node.scope);
      grads = node.backward(node.grad);
      SY_CHECK(grads.size() == node.inputs.size(), node.op, ": ", grads.size(), " gradients for ", node.inputs.size(),
               " inputs");
    }
    node.grad = {};
    node.second_grad = {};
    node.backward = {};
    node.spent = true;
    const std::vector<Variable> inputs = std::exchange(node.inputs, {});
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      Variable input = inputs[i];
      if (!input.requires_grad()) continue;
      if (i < grads.size() && grads[i]) input.accumulate(std::move(grads[i]));
      if (--uses[input.node_.get()] == 0 && input.node_->hook && input.node_->grad) input.node_->hook(input);
    }
  }
}

NoGrad::NoGrad() : before_(std::exchange(recording, false)) {}
NoGrad::~NoGrad() { recording = before_; }

Recording::Recording() : before_(std::exchange(recording, true)) {}
Recording::~Recording() { recording = before_; }

bool is_recording() { return recording; }

Scope::Scope(const char* name) : before_(std::exchange(scope, name)) {}
Scope::~Scope() { scope = before_; }

const char* Scope::current() { return scope; }

}  // namespace switchyard
