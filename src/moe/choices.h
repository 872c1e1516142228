#pragma once

#include "moe/gate.h"

namespace switchyard {

// The experts of each token, best first, and their weights. Without room for all of them, an expert chooses among its
// tokens itself where the configuration says so: then these are all experts. bias_E shifts the scores that decide, not
// the weights; it may be empty.
TopK choose_experts(const Scores& scores, const Tensor& bias_E, const MoeConfig& config);

// i32 (T, K): the experts that score highest.
Tensor best_experts(const Tensor& score_TE, std::int64_t top_k);

// What else the choices come to, f32: each token's best score (T, 1), and the choices that fell on each expert (E).
Tensor best_scores(const Tensor& score_TE);
Tensor choices_of_each(const Tensor& expert_TK, std::int64_t experts);

// Training keeps a token's experts after the first with probability min(1, weight / threshold) each (GShard, arXiv
// 2006.16668, algorithm 1, for 0.5); -1 in the place of the others.
Tensor thinned(const TopK& chosen, const RouterConfig& config, PhiloxKey key, std::int64_t first_token);

// Untrained: experts by a hash of the token's id and the layer's name, of equal weight (Roller et al., arXiv
// 2106.04426). token_T on the host.
TopK hashed_experts(const Tensor& token_T, const MoeConfig& config, PhiloxKey key, Device device);

}  // namespace switchyard
