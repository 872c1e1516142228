#pragma once

#include "autograd/parameter.h"
#include "dist/mesh.h"

namespace switchyard {

// Sums the gradients of replicated parameters over the ranks that hold them: dense ones over the data group, experts
// over the expert-data group. Small gradients travel together in buckets of `bucket_bytes`; a parameter without a
// gradient on this rank counts as zeros, as its peers wait for it. Sums, never averages: the loss is already divided by
// the tokens of the global batch.
void sum_gradients(Parameters& parameters, Mesh& mesh, std::int64_t bucket_bytes);

}  // namespace switchyard
