#pragma once

#include <vector>

#include "autograd/variable.h"
#include "dist/process_group.h"

namespace switchyard {

// How many rows go to, and come from, each rank of the group.
struct Exchange {
  std::vector<int> send, recv;
  Exchange reversed() const { return {recv, send}; }
};

// x: my rows, first those for rank 0, then those for rank 1, ...; y: the rows that came, in the order of their senders.
// Differentiable: the gradient travels the same routes backwards, so every rank must go backward through it, with or
// without rows. The group outlives the graph.
Variable all_to_all(const Variable& x, const Exchange& rows, ProcessGroup& group);

// Sequence parallelism (Korthikanti et al., arXiv 2205.05198, section 4.2.2): of a batch's rows each rank of the group
// has an equal part, in rank order. Each of the two is the other's transpose; the group outlives the graph.
//
// x (R, D) -> (size R, D): every rank's rows
Variable gather_rows(const Variable& x, ProcessGroup& group);
// x (size R, D) -> (R, D): this rank's rows of the sum of the ranks' x
Variable sum_rows(const Variable& x, ProcessGroup& group);

}  // namespace switchyard
