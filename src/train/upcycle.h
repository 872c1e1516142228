#pragma once

#include "checkpoint/checkpoint.h"
#include "train/learner.h"

namespace switchyard {

// Error (Fault::usage) where the checkpoint has experts, or another `model` section than the configuration, in more
// than how weights are drawn, and where experts are to have another activation than the layers that they are copies of.
void require_dense_counterpart(const Checkpoint& dense, const Config& config);

// Gives a learner with experts the weights of its dense counterpart (sparse upcycling: Komatsuzaki et al., arXiv
// 2212.05055, section 3.1): each expert becomes a copy of the feed-forward layer that its block had, all else is taken
// as it is, and routers stay as they were drawn. Shared experts, of any number, are new: as they were drawn, but that
// their down projections are zeros, so that they add nothing until they have learnt. The optimizer's moments stay
// zeros. Where weights are renormalised and nothing is dropped the model computes what the dense one did. Every rank
// calls. Throws Error (Fault::checkpoint) where tensors are missing or have other shapes, as those of experts of
// another width.
void upcycle(const Found& dense, Learner& learner, ProcessGroup& world);

}  // namespace switchyard
