#include "moe/router_losses.h"

#include <span>
#include <vector>

namespace switchyard {
namespace {

Variable balance(const Scores& scores, const Tensor& expert_AK, const MoeConfig& config, const LossScope& scope,
                 StepLoad& so_far) {
  const RouterConfig& router = config.router;
  const std::int64_t counted = router.balance_counts == BalanceCounts::first ? 1 : router.top_k;
  const Tensor counted_AK =
      router.bias ? scope.groups.all(best_experts(scores.gate_TE.value(), router.top_k)) : expert_AK;
  const auto divisor = static_cast<float>(router.balance_counts == BalanceCounts::mean ? router.top_k : 1);
  return balance_loss(scores.share_TE, choice_shares(counted_AK, counted, config.experts, scope, so_far),
                      static_cast<float>(config.experts) / divisor * scope.pass.share);
}

// `factor` where row and column belong to the same group of `rows` and `columns` of them, else 0.
Tensor same_group(std::int64_t groups, std::int64_t rows, std::int64_t columns, float factor, Device device) {
  std::vector<float> values(std::size_t(groups * rows * groups * columns));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto row = std::int64_t(i) / (groups * columns), column = std::int64_t(i) % (groups * columns);
    if (row / rows == column / columns) values[i] = factor;
  }
  return Tensor::of(std::span<const float>(values), {groups * rows, groups * columns}, device);
}

// Both are a balance loss: sum_d F_d P'_d = sum_e F_d(e) P_e, with F the sum of both f' and f'' times their
// coefficients.
Variable by_device(const Scores& scores, const Tensor& expert_AK, const MoeConfig& config, const LossScope& scope,
                   StepShares& so_far) {
  const RouterConfig& router = config.router;
  const std::int64_t D = router.expert_groups, members = config.experts / D;
  const Tensor f_GE = choice_shares(expert_AK, router.top_k, config.experts, scope, so_far.all);
  const Tensor m_GD = meeting_shares(expert_AK, D, config.experts, scope, so_far.met);
  if (!so_far.of_choices_EE) {
    const auto of_choices =
        static_cast<float>(router.device_loss * static_cast<double>(D) / static_cast<double>(router.top_k));
    const auto of_meetings =
        static_cast<float>(router.communication_loss * static_cast<double>(D) / static_cast<double>(router.groups_met));
    so_far.of_choices_EE = same_group(D, members, members, of_choices, f_GE.device());
    so_far.of_meetings_DE = same_group(D, 1, members, of_meetings, f_GE.device());
  }
  const Kernels& k = kernels(f_GE.device());
  Tensor F_GE = empty_like(f_GE);
  k.matmul(F_GE, f_GE, so_far.of_choices_EE, Trans::no, Trans::no, Into::overwrite);
  k.matmul(F_GE, m_GD, so_far.of_meetings_DE, Trans::no, Trans::no, Into::accumulate);
  return balance_loss(scores.share_TE, F_GE, scope.pass.share * scope.pass.balance_scale);
}

// Tokens that one term of the scope averages.
float tokens_of(const LossScope& scope) {
  return static_cast<float>(scope.kind == BalanceScope::group ? scope.groups.size()
                                                              : scope.groups.tokens() * scope.tokens.size());
}

}  // namespace

RouterLosses router_losses(const Scores& scores, const TopK& chosen, const Tensor& expert_AK, const MoeConfig& config,
                           const LossScope& scope, StepShares& so_far) {
  const RouterConfig& router = config.router;
  const Variable even = balance(scores, expert_AK, config, scope, so_far.counted);
  Variable loss_1 = times(even, static_cast<float>(router.balance_loss) * scope.pass.balance_scale);
  const auto add_loss = [&loss_1](const Variable& more_1) { loss_1 = add(loss_1, more_1); };

  if (router.device_loss > 0 || router.communication_loss > 0)
    add_loss(by_device(scores, expert_AK, config, scope, so_far));
  const float set = scope.pass.share * tokens_of(scope) * scope.pass.balance_scale;
  if (router.importance_loss > 0)
    add_loss(squared_variation(spread_choices(chosen.weight_TK, chosen.expert_TK, config.experts), scope,
                               static_cast<float>(router.importance_loss) * set));
  if (router.load_loss > 0 && scores.sigma_TE) {
    const TopK best = top_k(scores.logits_TE, router.top_k + 1, Renormalise::no);
    add_loss(squared_variation(choice_probability(scores.clean_TE, scores.sigma_TE, best), scope,
                               static_cast<float>(router.load_loss) * set));
  }
  const Tensor balance_term_1 = loss_1.value();

  Tensor z_1;
  if (scores.lse_T) {
    const Variable z = z_loss(scores.logits_TE, {scores.share_TE, scores.lse_T}, scope.pass.share);
    z_1 = z.value();
    add_loss(times(z, static_cast<float>(router.z_loss)));
  } else {
    z_1 = Tensor::zeros({1}, DType::f32, expert_AK.device());
  }
  return {.loss_1 = loss_1, .balance_term_1 = balance_term_1, .balance_1 = even.value(), .z_1 = z_1};
}

}  // namespace switchyard
