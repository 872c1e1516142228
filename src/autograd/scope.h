#pragma once

#include "autograd/variable.h"

namespace switchyard {

// While one of these lives, what this thread does belongs to the named part of the model. An op carries the name that
// it was recorded under into its backward pass. The text outlives the graph.
class Scope {
 public:
  explicit Scope(const char* name);
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

  // The innermost one's; "" outside of all.
  static const char* current();

 private:
  const char* before_;
};

}  // namespace switchyard
