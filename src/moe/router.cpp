#include "moe/router.h"

#include <algorithm>
#include <cmath>

namespace switchyard {

std::int64_t expert_capacity(double factor, std::int64_t top_k, std::int64_t group, std::int64_t experts) {
  // The product is exact for the sizes at hand; a factor such as 1.1 is not, and must not round a whole number up.
  const double rows = factor * static_cast<double>(top_k * group) / static_cast<double>(experts);
  return static_cast<std::int64_t>(std::ceil(rows - 1e-9));
}

Router::Router(const MoeConfig& config, std::int64_t d_model, const std::string& name, Mesh& mesh, ParameterMaker& make)
    : config_(config),
      name_(name),
      seed_(make.seed()),
      device_(make.device()),
      tensor_(*mesh.tensor),
      tokens_(*mesh.tokens) {
  if (config.router.scores != Scoring::hash) gate_.emplace(config, d_model, name, make);
  if (config.router.bias) state_->bias_E = Tensor::zeros({config.experts}, DType::f32, make.device());
}

bool Router::pads() const {
  return config_.dispatch == Dispatch::padded ||
         (config_.dispatch == Dispatch::automatic && device_.type == DeviceType::cuda);
}

RoutingGroups Router::groups_of(std::int64_t tokens, const RouterPass& pass) const {
  const std::int64_t size = config_.router.group_size;
  const bool grouped =
      pass.trains() || (config_.router.choice == Choosing::experts && tokens * tensor_.size() % size == 0);
  return {grouped ? size : std::max<std::int64_t>(tokens, 1), tokens, tensor_};
}

TopK Router::choose(const Scores& scores, const RouterPass& pass) const {
  if (!gate_) return hashed_experts(pass.token_T, config_, philox_key(seed_, name_ + " hash"), device_);
  return choose_experts(scores, state_->bias_E, config_);
}

// Who is kept, and the rows of those. score_TK decides who goes first where the configuration wants that.
void Router::place(Routing& routing, const Tensor& expert_AK, const Tensor& score_TK, const RoutingGroups& groups,
                   const RouterPass& pass, std::int64_t parts) const {
  const RouterConfig& router = config_.router;
  const bool experts_choose = router.choice == Choosing::experts;
  const std::int64_t tokens = groups.tokens(), choices = expert_AK.dim(1), experts = config_.experts;
  const Kernels& k = kernels(device_);
  const std::int64_t rows =
      pass.trains() || experts_choose
          ? std::min(expert_capacity(router.capacity_factor, router.top_k, groups.size(), experts), groups.size())
          : 0;
  SY_CHECK(parts == 1 || tokens % (parts * groups.size()) == 0, "router: ", tokens, " tokens in groups of ",
           groups.size(), " do not make ", parts, " parts");
  const Placement placement{
      .experts = experts, .group = groups.size(), .capacity = rows, .padded = rows > 0 && pads(), .parts = parts};
  Tensor slot_AK = Tensor::empty(expert_AK.shape(), DType::i32, device_);
  if (rows > 0 && score_TK)
    k.admit_by_priority(slot_AK, expert_AK, groups.all(score_TK), placement,
                        experts_choose ? Priority::score : Priority::choice_then_score);
  else if (rows > 0)
    k.admit(slot_AK, expert_AK, placement);
  routing.slot_TK = groups.own(slot_AK);
  routing.token_N = Tensor::empty({placement.rows(tokens, choices)}, DType::i32, device_);
  routing.count_PE = Tensor::empty({parts, experts}, DType::i32, device_);
  routing.rows_each = placement.owned(tokens);
  k.place(routing.slot_TK, routing.token_N, routing.count_PE, groups.own(expert_AK), placement);
  // Where experts choose, what all of them take, of which each rank of the tensor group counts its part.
  const std::int64_t taken = experts * rows * (tokens * tensor_.size() / groups.size());
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
  const Tensor expert_TK = router.second_threshold > 0 && pass.trains()
                               ? thinned(chosen, router, pass.key(seed_, name_, "second"), pass.first_token)
                               : chosen.expert_TK;
  const Tensor expert_AK = groups.all(expert_TK);
  Tensor score_TK;
  if (router.choice == Choosing::experts) score_TK = chosen.weight_TK.value();
  if (router.admission == Admission::priority) score_TK = best_scores(scores.gate_TE.value());

  Routing routing;
  routing.weight_TK = chosen.weight_TK;
  place(routing, expert_AK, score_TK, groups, pass, parts);
  routing.stats.kept_PE = routing.count_PE;
  routing.stats.tokens = groups.tokens();
  routing.stats.entropy_1 = Tensor::zeros({1}, DType::f32, device_);
  if (pass.observe) routing.stats.seen = observed(scores, routing, expert_TK);
  if (pass.record) routing.stats.decided = {gate_ ? scores.logits_TE.value() : Tensor(), expert_TK, routing.slot_TK};
  if (state_->bias_E && pass.trains())
    state_->chosen.set(pass.step, pass.first_token, choices_of_each(expert_TK, config_.experts));
  if (!gate_) {
    routing.stats.balance_1 = routing.stats.z_1 = routing.stats.entropy_1;
    return routing;
  }
  kernels(device_).entropy(routing.stats.entropy_1, scores.share_TE.value());
  const LossScope scope{router.balance_scope, groups, tokens_, pass};
  RouterLosses losses = router_losses(scores, chosen, expert_AK, config_, scope, state_->shares);
  routing.loss_1 = losses.loss_1;
  routing.stats.balance_1 = losses.balance_1;
  routing.stats.z_1 = losses.z_1;
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
