#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "tensor/tensor.h"
#include "tensor/weight.h"

namespace switchyard {

// One gradient per input, in the order of the inputs; an empty Tensor means "none".
using Grads = std::vector<Tensor>;
using Backward = std::function<Grads(const Tensor& dy)>;
// Of an op with two results, once the gradients of both that will come have come: one that never came is empty.
using BackwardOfTwo = std::function<Grads(const Tensor& dfirst, const Tensor& dsecond)>;

// A tensor in the graph: its value, its gradient, and how to send the gradient on. Copying a Variable copies a handle.
// The graph holds what ops made of it, never its value: that lives as long as a handle, or what a Backward captures.
class Variable {
 public:
  Variable() = default;
  explicit Variable(Tensor value, bool requires_grad = false);

  explicit operator bool() const { return held_ != nullptr; }
  const Tensor& value() const;
  Tensor& value();
  const Tensor& grad() const;  // empty until backward reached it
  Tensor& grad();
  bool requires_grad() const;
  const Shape& shape() const { return value().shape(); }
  DType dtype() const { return value().dtype(); }
  Device device() const { return value().device(); }

  void zero_grad();
  // grad() += grad. The first one is shared, not copied; a shared one is copied before it is added to.
  void accumulate(Tensor grad);

  // Called when backward() has added the last contribution to this leaf's gradient. One hook a leaf. A leaf that a
  // recomputed block and the graph outside it both use is announced once by each.
  void on_grad(std::function<void()> hook);

  // The compute copy that products with rows of `dtype` read: made on the first call, and again only by
  // refresh_weight().
  const Weight& weight(DType dtype) const;
  // The compute copy, where one was made; the optimizer rewrites it in its own pass.
  Weight* compute_copy() const;
  // Call after changing value() of a leaf by hand.
  void refresh_weight();
  // The leaf's value is on its way here. Whoever asks for it or its compute copy next calls `wait` first, and the
  // compute copy is made anew.
  void arrives(std::function<void()> wait);

  // Sends dy from here to every leaf, then lets go of what the graph saved: one pass a graph. Ops go backward in the
  // reverse of the order in which they were recorded, so that what ran beside a collective does so again.
  void backward(const Tensor& dy);

 private:
  struct Node;  // its place in the graph
  struct Held;  // its value, and that place
  void settle() const;
  friend Variable record(const char*, Tensor, std::vector<Variable>, Backward);
  friend std::pair<Variable, Variable> record(const char*, Tensor, Tensor, std::vector<Variable>, BackwardOfTwo);
  std::shared_ptr<Held> held_;
};

// Makes the result of an op. What `backward` captures is exactly what the op keeps alive.
Variable record(const char* op, Tensor value, std::vector<Variable> inputs, Backward backward);
std::pair<Variable, Variable> record(const char* op, Tensor first, Tensor second, std::vector<Variable> inputs,
                                     BackwardOfTwo backward);

// While one of these lives, ops on this thread record nothing.
class NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool before_;
};

// The opposite, for recomputation inside backward.
class Recording {
 public:
  Recording();
  ~Recording();
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

 private:
  bool before_;
};

// True when ops on this thread record; an op may skip work that only backward needs.
bool is_recording();

}  // namespace switchyard
