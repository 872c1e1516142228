#include "moe/choices.h"

#include <algorithm>
#include <span>
#include <vector>

namespace switchyard {
namespace {

struct Best {
  Tensor score_TK, expert_TK;
};
Best best_of(const Tensor& score_TE, std::int64_t top_k) {
  Best best;
  best.score_TK = Tensor::empty(score_TE.shape().with(1, top_k), DType::f32, score_TE.device());
  best.expert_TK = Tensor::empty(best.score_TK.shape(), DType::i32, score_TE.device());
  kernels(score_TE.device()).top_k(best.score_TK, best.expert_TK, score_TE, Renormalise::no);
  return best;
}

}  // namespace

TopK choose_experts(const Scores& scores, const Tensor& bias_E, const MoeConfig& config) {
  const RouterConfig& router = config.router;
  const Renormalise renormalise = router.renormalise ? Renormalise::yes : Renormalise::no;
  const bool is_limited = router.groups_met < router.expert_groups;
  TopK chosen;
  if (router.choice == Choosing::experts) {
    chosen = top_k(scores.gate_TE, config.experts, Renormalise::no);
  } else if (bias_E || is_limited) {
    Tensor score_TE = empty_like(scores.gate_TE.value());
    kernels(score_TE.device())
        .selection_scores(score_TE, scores.gate_TE.value(), bias_E,
                          {.groups = router.expert_groups, .met = router.groups_met, .best = router.group_best});
    chosen.expert_TK = best_experts(score_TE, router.top_k);
    chosen.weight_TK = choose(scores.gate_TE, chosen.expert_TK, renormalise);
  } else {
    chosen = top_k(scores.gate_TE, router.top_k, renormalise);
  }
  if (router.weight_scale != 1) chosen.weight_TK = times(chosen.weight_TK, static_cast<float>(router.weight_scale));
  return chosen;
}

Tensor best_experts(const Tensor& score_TE, std::int64_t top_k) { return best_of(score_TE, top_k).expert_TK; }

Tensor best_scores(const Tensor& score_TE) { return best_of(score_TE, 1).score_TK; }

Tensor choices_of_each(const Tensor& expert_TK, std::int64_t experts) {
  const Kernels& k = kernels(expert_TK.device());
  Tensor chosen_1KE = Tensor::empty({1, expert_TK.dim(1), experts}, DType::i32, expert_TK.device());
  k.count_choices(chosen_1KE, expert_TK, {.experts = experts, .group = std::max<std::int64_t>(expert_TK.dim(0), 1)});
  Tensor sum_1E = Tensor::empty({1, experts}, DType::f32, expert_TK.device());
  k.choice_fractions(sum_1E, chosen_1KE, expert_TK.dim(1), 1);
  return sum_1E.view({experts});
}

Tensor thinned(const TopK& chosen, const RouterConfig& config, PhiloxKey key, std::int64_t first_token) {
  const Kernels& k = kernels(chosen.expert_TK.device());
  Tensor expert_TK = empty_like(chosen.expert_TK), random_TK = empty_like(chosen.weight_TK.value());
  k.copy(expert_TK, chosen.expert_TK);
  k.uniform(random_TK, key, static_cast<std::uint64_t>(first_token * expert_TK.dim(1)));
  k.thin_choices(expert_TK, chosen.weight_TK.value(), random_TK, static_cast<float>(config.second_threshold));
  return expert_TK;
}

// Each choice is drawn among the experts that are left: a number below their count, passed over those taken.
TopK hashed_experts(const Tensor& token_T, const MoeConfig& config, PhiloxKey key, Device device) {
  const std::int64_t top_k = config.router.top_k;
  const Shape shape{token_T.numel(), top_k};
  std::vector<std::int32_t> experts, taken;
  for (const std::int32_t token : std::span(token_T.data<std::int32_t>(), std::size_t(token_T.numel()))) {
    taken.clear();
    for (std::int64_t i = 0; i < top_k; ++i) {
      const std::uint32_t bits = philox(key, static_cast<std::uint64_t>(token), static_cast<std::uint64_t>(i))[0];
      auto expert =
          static_cast<std::int32_t>(std::uint64_t{bits} * static_cast<std::uint64_t>(config.experts - i) >> 32);
      for (const std::int32_t other : taken) expert += other <= expert;
      taken.insert(std::ranges::upper_bound(taken, expert), expert);
      experts.push_back(expert);
    }
  }
  const std::vector<float> weights(experts.size(), 1.0f / static_cast<float>(top_k));
  return {Variable(Tensor::of(std::span<const float>(weights), shape, device)),
          Tensor::of(std::span<const std::int32_t>(experts), shape, device)};
}

}  // namespace switchyard
