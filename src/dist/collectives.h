#pragma once

#include "autograd/variable.h"
#include "dist/process_group.h"

namespace switchyard {

// Sequence parallelism (Korthikanti et al., arXiv 2205.05198, section 4.2.2): of a batch's rows each rank of the group
// has an equal part, in rank order. Each of the two is the other's transpose; the group outlives the graph.
//
// x (R, D) -> (size R, D): every rank's rows
Variable gather_rows(const Variable& x, ProcessGroup& group);
// x (size R, D) -> (R, D): this rank's rows of the sum of the ranks' x
Variable sum_rows(const Variable& x, ProcessGroup& group);

}  // namespace switchyard
