#include "moe/load.h"

#include <algorithm>
#include <span>
#include <vector>

#include "autograd/ops.h"
#include "tensor/kernels.h"

namespace switchyard {
namespace {

Tensor fractions(const Tensor& chosen_GKE, std::int64_t counted, std::int64_t tokens) {
  Tensor f_GE = Tensor::empty({chosen_GKE.dim(0), chosen_GKE.dim(2)}, DType::f32, chosen_GKE.device());
  kernels(chosen_GKE.device()).choice_fractions(f_GE, chosen_GKE, counted, static_cast<float>(tokens));
  return f_GE;
}

// count(choices, sets, tokens of a set) gives i32 (sets, K, E).
template <class Count>
Tensor shares(const Tensor& expert_AK, std::int64_t counted, const LossScope& scope, StepLoad& so_far, Count count) {
  if (scope.kind == BalanceScope::group) {
    const std::int64_t groups = std::max<std::int64_t>(1, expert_AK.dim(0) / scope.groups.size());
    return scope.groups.of_own_parts(
        fractions(count(expert_AK, groups, scope.groups.size()), counted, scope.groups.size()));
  }
  const std::int64_t own = std::max<std::int64_t>(scope.groups.tokens(), 1);
  Tensor chosen_1KE = count(scope.groups.own(expert_AK), 1, own);
  scope.tokens.all_reduce(chosen_1KE, Reduce::sum);
  const Tensor f_1E = fractions(chosen_1KE, counted, own * scope.tokens.size());
  if (scope.kind == BalanceScope::micro_batch || !scope.pass.trains()) return f_1E;

  so_far.set(scope.pass.step, scope.pass.first_token, f_1E);
  auto [mean_1E, parts] = so_far.up_to(scope.pass.first_token);
  const float factor = 1.0f / static_cast<float>(parts);
  kernels(mean_1E.device()).scale(mean_1E, Tensor::of(std::span<const float>(&factor, 1), {1}, mean_1E.device()));
  return mean_1E;
}

}  // namespace

Tensor choice_shares(const Tensor& expert_AK, std::int64_t counted, std::int64_t experts, const LossScope& scope,
                     StepLoad& so_far) {
  return shares(expert_AK, counted, scope, so_far,
                [experts](const Tensor& expert_TK, std::int64_t sets, std::int64_t size) {
                  Tensor chosen_GKE = Tensor::empty({sets, expert_TK.dim(1), experts}, DType::i32, expert_TK.device());
                  kernels(expert_TK.device()).count_choices(chosen_GKE, expert_TK, {.experts = experts, .group = size});
                  return chosen_GKE;
                });
}

Tensor meeting_shares(const Tensor& expert_AK, std::int64_t blocks, std::int64_t experts, const LossScope& scope,
                      StepLoad& so_far) {
  return shares(expert_AK, 1, scope, so_far, [=](const Tensor& expert_TK, std::int64_t sets, std::int64_t size) {
    Tensor met_GD = Tensor::empty({sets, blocks}, DType::i32, expert_TK.device());
    kernels(expert_TK.device()).count_meetings(met_GD, expert_TK, {.experts = experts, .group = size});
    return met_GD.view({sets, 1, blocks});
  });
}

// With s_g = sum_t x_t over set g: y = scale sum_g CV(s_g)^2 / ranks        dx_t = scale dCV(s_g(t))^2 / ds_g dy
// Each rank's share of the value is as large as any's; the gradient of all of it goes back to every rank's x.
Variable squared_variation(const Variable& x_TE, const LossScope& scope, float scale) {
  const Kernels& k = kernels(x_TE.device());
  const RoutingGroups& groups = scope.groups;
  const bool of_groups = scope.kind == BalanceScope::group;
  ProcessGroup* const ranks = !of_groups ? &scope.tokens : groups.spread_over();
  const std::int64_t sets = of_groups ? groups.number() : 1, experts = x_TE.shape()[1];

  Tensor sum_GE = Tensor::zeros({sets, experts}, DType::f32, x_TE.device()), dsum_GE = empty_like(sum_GE);
  const std::vector<std::int32_t> set_T =
      of_groups ? groups.of_own_tokens() : std::vector<std::int32_t>(std::size_t(groups.tokens()));
  k.scatter_add_rows(sum_GE, x_TE.value(),
                     Tensor::of(std::span<const std::int32_t>(set_T), {std::ssize(set_T)}, x_TE.device()));
  if (ranks) ranks->all_reduce(sum_GE, Reduce::sum);
  Tensor y = Tensor::empty({1}, DType::f32, x_TE.device());
  k.squared_variation(y, dsum_GE, sum_GE, scale);
  const float part = ranks ? 1.0f / static_cast<float>(ranks->size()) : 1;
  k.scale(y, Tensor::of(std::span<const float>(&part, 1), {1}, y.device()));
  const Tensor own_GE = of_groups ? groups.of_own_parts(dsum_GE) : dsum_GE;

  return record("squared_variation", y, {x_TE}, [&k, own_GE, shape = x_TE.shape()](const Tensor& dy) -> Grads {
    Tensor dx = Tensor::empty(shape, DType::f32, dy.device());
    k.balance_loss_backward(dx, dy, own_GE, 1);
    return {dx};
  });
}

}  // namespace switchyard
