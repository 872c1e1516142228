#pragma once

#include <functional>

#include "autograd/variable.h"

namespace switchyard {

// (y, extra) = body(x), keeping only x: backward runs the body again, recording, and goes back through that. Trades one
// more forward for the activations in between (Chen et al., "Training deep nets with sublinear memory cost", 2016).
// The body must compute the same again: it may use parameters and collectives, but no state that changed since. It runs
// on a leaf in place of x, so it must not use x, or what x was made from, except through its argument.
// Backward runs the body once, when the gradients of both results have arrived, whichever of them the loss uses.
// While recording, the results require a gradient always: the body's parameters are not known before it runs again.
struct Recomputed {
  Variable y;
  Variable extra;  // one more differentiable result, of any shape (a balance loss); may be empty
};
Recomputed recompute(const Variable& x, std::function<Recomputed(const Variable& x)> body);

}  // namespace switchyard
