#include "moe/router.h"

#include <algorithm>

namespace switchyard {

Router::Router(const MoeConfig& config, std::int64_t d_model, const std::string& name, Mesh& mesh, ParameterMaker& make)
    : config_(config),
      name_(name),
      seed_(make.seed()),
      device_(make.device()),
      tensor_(*mesh.tensor),
      tokens_(*mesh.tokens),
      room_(config, seed_) {
  if (config.router.scores != Scoring::hash) gate_.emplace(config, d_model, name, make);
  if (config.router.bias) state_->bias_E = Tensor::zeros({config.experts}, DType::f32, make.device());
}

RoutingGroups Router::groups_of(std::int64_t tokens, const RouterPass& pass) const {
  const std::int64_t group = pass.window > 0 ? pass.window : config_.router.group_size;
  const bool is_grouped = pass.trains() || config_.router.choice == Choosing::experts;
  return {is_grouped ? group : std::max<std::int64_t>(tokens, 1), tokens, tensor_};
}

TopK Router::choose(const Scores& scores, const RouterPass& pass) const {
  if (!gate_) return hashed_experts(pass.token_T, config_, philox_key(seed_, name_ + " hash"), device_);
  return choose_experts(scores, state_->bias_E, config_);
}

// The rows of the choices that found room.
void Router::place(Routing& routing, const Tensor& expert_AK, const Tensor& slot_AK, const RoutingGroups& groups,
                   const Placement& placement) const {
  const bool experts_choose = config_.router.choice == Choosing::experts;
  const std::int64_t tokens = groups.tokens(), choices = expert_AK.dim(1), experts = config_.experts;
  SY_CHECK(placement.parts == 1 || tokens % (placement.parts * groups.size()) == 0, "router: ", tokens,
           " tokens in groups of ", groups.size(), " do not make ", placement.parts, " parts");
  routing.slot_TK = groups.own(slot_AK);
  routing.token_N = Tensor::empty({placement.rows(tokens, choices)}, DType::i32, device_);
  routing.count_PE = Tensor::empty({placement.parts, experts}, DType::i32, device_);
  routing.rows_each = placement.owned(tokens);
  kernels(device_).place(routing.slot_TK, routing.token_N, routing.count_PE, groups.own(expert_AK), placement);
  // Where experts choose, what all of them take, of which each rank of the tensor group counts its part.
  const std::int64_t taken = experts * placement.capacity * (tokens * tensor_.size() / groups.size());
  routing.stats.choices = experts_choose
                              ? taken * (tensor_.rank() + 1) / tensor_.size() - taken * tensor_.rank() / tensor_.size()
                              : tokens * choices;
}

// Hashed tokens have no scores, which zeros stand for.
Observation Router::observed(const Scores& scores, const Routing& routing, const Tensor& expert_TK) const {
  if (!gate_) {
    const Tensor none_TE = Tensor::zeros({expert_TK.dim(0), config_.experts}, DType::f32, expert_TK.device());
    return observe(none_TE, {}, none_TE, routing.weight_TK.value(), expert_TK, routing.slot_TK);
  }
  const Variable& logits_TE = scores.clean_TE ? scores.clean_TE : scores.logits_TE;
  return observe(logits_TE.value(), scores.before_TE, scores.share_TE.value(), routing.weight_TK.value(), expert_TK,
                 routing.slot_TK);
}

Routing Router::operator()(const Variable& x_TD, const RouterPass& pass, std::int64_t parts) const {
  return route(gate_ ? (*gate_)(x_TD, pass) : Scores{}, pass, parts);
}

Routing Router::route(const Scores& scores, const RouterPass& pass, std::int64_t parts) const {
  const RouterConfig& router = config_.router;
  const TopK chosen = choose(scores, pass);
  const RoutingGroups groups = groups_of(chosen.expert_TK.dim(0), pass);
  const bool is_thinned = router.second_threshold > 0 && pass.trains();
  const Tensor expert_TK =
      is_thinned ? thinned(chosen, router, pass.key(seed_, name_, "second"), pass.first_token) : chosen.expert_TK;
  const Tensor expert_AK = groups.all(expert_TK);
  const Placement placement = room_.placement(groups, pass, parts, pads(config_.dispatch, device_.type));
  const Tensor slot_AK = room_.admitted(expert_AK, scores, chosen, groups, pass, placement);

  Routing routing;
  routing.weight_TK = chosen.weight_TK;
  place(routing, expert_AK, slot_AK, groups, placement);
  routing.stats.kept_PE = routing.count_PE;
  routing.stats.tokens = groups.tokens();
  if (is_thinned) routing.stats.chosen_E = choices_of_each(expert_TK, config_.experts);
  routing.stats.entropy_1 = Tensor::zeros({1}, DType::f32, device_);
  if (pass.observe) routing.stats.seen = observed(scores, routing, expert_TK);
  if (pass.record) routing.stats.decided = {gate_ ? scores.logits_TE.value() : Tensor(), expert_TK, routing.slot_TK};
  if (state_->bias_E && pass.trains())
    state_->chosen.set(pass.step, pass.first_token, choices_of_each(expert_TK, config_.experts));
  if (!gate_) {
    routing.stats.balance_1 = routing.stats.z_1 = routing.stats.balance_term_1 = routing.stats.entropy_1;
    return routing;
  }
  kernels(device_).entropy(routing.stats.entropy_1, scores.share_TE.value());
  const LossScope scope{router.balance_scope, groups, tokens_, pass};
  RouterLosses losses = router_losses(scores, chosen, expert_AK, config_, scope, state_->shares);
  routing.loss_1 = losses.loss_1;
  routing.stats.balance_1 = losses.balance_1;
  routing.stats.z_1 = losses.z_1;
  routing.stats.balance_term_1 = losses.balance_term_1;
  return routing;
}

void Router::end_step() {
  if (!state_->bias_E || config_.router.bias_rate == 0) return;
  Tensor chosen_E = state_->chosen.all().load;
  SY_CHECK(chosen_E, "router: a step ended without a pass");
  tokens_.all_reduce(chosen_E, Reduce::sum);
  kernels(chosen_E.device()).adjust_bias(state_->bias_E, chosen_E, static_cast<float>(config_.router.bias_rate));
}

}  // namespace switchyard
