#include "autograd/recompute.h"

#include <utility>

namespace switchyard {
namespace {

using Body = std::function<Recomputed(const Variable&)>;

// The gradients of the two results; an empty one never came.
struct Arrived {
  Tensor dy, dextra;
};

// Runs the body on a leaf, recording, and sends both gradients back through it in one pass, joined in a node whose own
// gradient says only "now". Returns the gradient of x, if it requires one.
Tensor body_backward(const Body& body, const Tensor& x, bool requires_grad, Arrived arrived, const Tensor& now) {
  const Recording guard;
  const Variable leaf(x, requires_grad);
  auto [y, extra] = body(leaf);
  Variable both = record("recompute", now, {std::move(y), std::move(extra)}, [&arrived](const Tensor&) -> Grads {
    return {std::exchange(arrived.dy, {}), std::exchange(arrived.dextra, {})};
  });
  both.backward(now);
  return leaf.grad();
}

}  // namespace

//   x, anchor -> block -> y, extra
// Backward meets `block` after both results, which leave their gradients in `arrived`. The anchor is a leaf that makes
// the block record though x may not require a gradient: parameters inside the body do.
Recomputed recompute(const Variable& x, Body body) {
  if (!is_recording()) return body(x);
  const auto [y, extra] = [&] {
    const NoGrad guard;
    return body(x);
  }();

  const auto arrived = std::make_shared<Arrived>();
  const Tensor now = Tensor::zeros({1}, DType::f32, x.device());
  const Variable block = record(
      "recompute", now, {x, Variable(now, true)},
      [body = std::move(body), x = x.value(), requires_grad = x.requires_grad(), arrived, now](const Tensor&) -> Grads {
        return {body_backward(body, x, requires_grad, std::exchange(*arrived, {}), now), {}};
      });

  const auto result = [&](const Variable& value, Tensor Arrived::*gradient) {
    if (!value) return Variable{};
    return record("recompute", value.value(), {block}, [arrived, now, gradient](const Tensor& d) -> Grads {
      (*arrived).*gradient = d;
      return {now};
    });
  };
  return {result(y, &Arrived::dy), result(extra, &Arrived::dextra)};
}

}  // namespace switchyard
