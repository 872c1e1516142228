#pragma once

#include "moe/config.h"
#include "moe/routing.h"
#include "moe/routing_groups.h"
#include "moe/step_load.h"

namespace switchyard {

// The tokens that a router's losses average: a routing group, a micro-batch of all ranks, or the global batch as far as
// the step has come. Every rank of `tokens`, all that see different ones, works these out together.
struct LossScope {
  BalanceScope kind;
  const RoutingGroups& groups;
  ProcessGroup& tokens;
  const RouterPass& pass;
};

// Loads as shares of the scope's tokens, f32, before capacity, a row for each equal part of this rank's tokens.
// expert_AK: the choices of all tokens of the routing groups. `so_far` holds what a step's earlier micro-batches had.
//   f_e: the first `counted` choices that fell on expert e / tokens
Tensor choice_shares(const Tensor& expert_AK, std::int64_t counted, std::int64_t experts, const LossScope& scope,
                     StepLoad& so_far);
//   m_d: tokens that chose any expert of block d, of `blocks` of neighbouring ones / tokens
Tensor meeting_shares(const Tensor& expert_AK, std::int64_t blocks, std::int64_t experts, const LossScope& scope,
                      StepLoad& so_far);

// scale times the sum over the scope's sets of tokens of CV(sum_t x_t)^2, CV being the standard deviation over the mean
// among experts (Shazeer et al., arXiv 1701.06538, section 4): this rank's share, times the tokens of a set. The scope
// is no global batch.
Variable squared_variation(const Variable& x_TE, const LossScope& scope, float scale);

}  // namespace switchyard
