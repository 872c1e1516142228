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
  Shape shape;              // of the value and of the gradient
  Tensor grad;
  Tensor second_grad;  // of an op with two results: the second's gradient, left here, where the first's is
  bool requires_grad = false;
  bool spent = false;                         // backward went through here and let go of the inputs
  std::vector<std::shared_ptr<Node>> inputs;  // null where an op was given no Variable
  Backward backward;
  std::function<void()> hook;

  void accumulate(Tensor contribution);

  // Takes a dying chain apart link by link; the default would recurse once per link.
  ~Node() {
    std::vector<std::shared_ptr<Node>> dying = std::move(inputs);
    while (!dying.empty()) {
      const std::shared_ptr<Node> node = std::move(dying.back());
      dying.pop_back();
      if (node && node.use_count() == 1) {
        node->backward = {};
        std::ranges::move(node->inputs, std::back_inserter(dying));
        node->inputs.clear();
      }
    }
  }
};

struct Variable::Held {
  Tensor value;
  Weight weight;
  std::function<void()> arrival;  // of the value, where nobody has waited for it
  std::shared_ptr<Node> node;
};

Variable::Variable(Tensor value, bool requires_grad) : held_(std::make_shared<Held>()) {
  held_->node = std::make_shared<Node>();
  held_->node->shape = value.shape();
  held_->node->requires_grad = requires_grad;
  held_->value = std::move(value);
}

const Tensor& Variable::value() const {
  settle();
  return held_->value;
}
Tensor& Variable::value() {
  settle();
  return held_->value;
}
const Tensor& Variable::grad() const { return held_->node->grad; }
Tensor& Variable::grad() { return held_->node->grad; }
bool Variable::requires_grad() const { return held_ && held_->node->requires_grad; }
void Variable::zero_grad() { held_->node->grad = {}; }
void Variable::on_grad(std::function<void()> hook) { held_->node->hook = std::move(hook); }
void Variable::accumulate(Tensor grad) { held_->node->accumulate(std::move(grad)); }

void Variable::Node::accumulate(Tensor contribution) {
  SY_CHECK(contribution.shape() == shape, op, ": gradient is ", contribution.shape(), ", value is ", shape);
  if (!grad) {
    grad = std::move(contribution);
    return;
  }
  const Kernels& k = kernels(contribution.device());
  if (!grad.sole_owner()) {
    const Tensor shared = grad;
    grad = empty_like(shared);
    k.copy(grad, shared);
  }
  k.add(grad, contribution);
}

const Weight& Variable::weight(DType dtype) const {
  settle();
  Weight& weight = held_->weight;
  // An f32 weight is the value itself, which a test may have replaced since.
  if (!weight || weight.dtype != dtype || dtype == DType::f32) weight = make_weight(held_->value, dtype);
  return weight;
}

Weight* Variable::compute_copy() const { return held_->weight ? &held_->weight : nullptr; }

void Variable::refresh_weight() {
  settle();
  if (held_->weight) refresh(held_->weight, held_->value);
}

void Variable::arrives(std::function<void()> wait) { held_->arrival = std::move(wait); }

void Variable::settle() const {
  if (!held_->arrival) return;
  std::exchange(held_->arrival, {})();
  if (held_->weight) refresh(held_->weight, held_->value);
}

Variable record(const char* op, Tensor value, std::vector<Variable> inputs, Backward backward) {
  Variable out(std::move(value));
  if (recording && std::ranges::any_of(inputs, &Variable::requires_grad)) {
    Variable::Node& node = *out.held_->node;
    node.op = op;
    node.scope = scope;
    node.number = ++recorded;
    node.requires_grad = true;
    for (const Variable& input : inputs) node.inputs.push_back(input ? input.held_->node : nullptr);
    node.backward = std::move(backward);
  }
  return out;
}

// The second result is a node above the first, so that backward has gone through it when it reaches the first.
std::pair<Variable, Variable> record(const char* op, Tensor first, Tensor second, std::vector<Variable> inputs,
                                     BackwardOfTwo backward) {
  Variable below = record(op, std::move(first), std::move(inputs), {});
  Variable::Node* const node = below.held_->node.get();
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
  std::vector<std::shared_ptr<Node>> order{held_->node};
  std::unordered_map<Node*, int> uses;  // of each node that needs a gradient, by nodes of this graph
  for (std::size_t i = 0; i < order.size(); ++i) {
    const Node& node = *order[i];
    SY_CHECK(!node.spent, node.op, ": an earlier backward() has used this part of the graph up");
    for (const std::shared_ptr<Node>& input : node.inputs)
      if (input && input->requires_grad && uses[input.get()]++ == 0) order.push_back(input);
  }
  std::ranges::stable_sort(order, {}, &Node::number);

  accumulate(dy);
  if (const Node& top = *held_->node; top.inputs.empty() && top.hook) top.hook();
  while (!order.empty()) {
    const std::shared_ptr<Node> taken = std::move(order.back());
    order.pop_back();
    Node& node = *taken;
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
    const std::vector<std::shared_ptr<Node>> inputs = std::exchange(node.inputs, {});
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (!inputs[i] || !inputs[i]->requires_grad) continue;
      Node& input = *inputs[i];
      if (i < grads.size() && grads[i]) input.accumulate(std::move(grads[i]));
      if (--uses[&input] == 0 && input.hook && input.grad) input.hook();
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
