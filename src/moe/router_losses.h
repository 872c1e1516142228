#pragma once

#include "moe/choices.h"
#include "moe/load.h"

namespace switchyard {

// What a router adds to the loss, as shares of means over tokens (with P_e the mean of expert e's score as a share of
// 1, f_e the share of tokens that chose it, all over the scope's tokens):
//   balance        E sum_e f_e P_e          Switch (arXiv 2101.03961, section 2.2); K when uniform where f counts all
//                                           choices (Mixtral), 1 where it is divided by K (DeepSeek). Where a bias
//                                           decides, f counts what the scores alone would choose among all experts
//                                           (DeepSeek-V3, arXiv 2412.19437, equation 18)
//   device         sum_d f'_d P'_d          over D groups of experts, f' the mean of E / K f in one, P' the sum of P
//   communication  sum_d f''_d P'_d         f'' = D / M times the share of tokens that go to group d (M is the limit):
//                                           DeepSeek-V2 (arXiv 2405.04434, section 2.2.3)
//   importance     CV(sum_t weight_t)^2     Shazeer et al. (arXiv 1701.06538, section 4)
//   load           CV(sum_t P(chosen))^2    (the same, appendix A)
//   z              mean_t logsumexp(logits_t)^2    ST-MoE (arXiv 2202.08906, section 3.3)
struct RouterLosses {
  Variable loss_1;        // all, times their coefficients; those but z's also times the pass's balance_scale
  Tensor balance_term_1;  // of that all but z's
  Tensor balance_1, z_1;  // this rank's shares, coefficients left out
};

// What a router keeps between passes for its losses: what the micro-batches of a step so far came to, where the scope
// is the global batch, and the factors of the losses over groups of experts, made once.
struct StepShares {
  StepLoad counted, all, met;
  Tensor of_choices_EE, of_meetings_DE;
};

// expert_AK: the choices of all tokens of the scope's routing groups.
RouterLosses router_losses(const Scores& scores, const TopK& chosen, const Tensor& expert_AK, const MoeConfig& config,
                           const LossScope& scope, StepShares& so_far);

}  // namespace switchyard
