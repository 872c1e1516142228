#include "moe/router.h"

#include <algorithm>
#include <cmath>

namespace switchyard {

std::int64_t expert_capacity(double factor, std::int64_t top_k, std::int64_t group, std::int64_t experts) {
  // The product is exact for the sizes at hand; a factor such as 1.1 is not, and must not round a whole number up.
  const double rows = factor * static_cast<double>(top_k * group) / static_cast<double>(experts);
  return static_cast<std::int64_t>(std::ceil(rows - 1e-9));
}

Router::Router(const MoeConfig& config, std::int64_t d_model, const std::string& name, ProcessGroup& data,
               ParameterMaker& make)
    : config_(config), data_(data) {
  const double std = std::sqrt(config.router_init_scale / static_cast<double>(d_model));
  weight_ = make.matrix(name + ".gate.weight", {config.experts, d_model}, {.std = std, .limit = 2}, Decay::no);
}

// f_ge = choices of expert e in group g / tokens of the group, or one row over the micro-batch of all ranks
Tensor Router::load_GE(const Tensor& expert_TK, std::int64_t group) const {
  const std::int64_t tokens = expert_TK.dim(0), experts = config_.experts;
  const bool whole = config_.balance_scope == BalanceScope::micro_batch;
  if (whole) group = std::max<std::int64_t>(tokens, 1);
  const std::int64_t groups = std::max<std::int64_t>(1, tokens / group),
                     counted = config_.balance_counts == BalanceCounts::first ? 1 : config_.top_k;

  const Kernels& k = kernels(expert_TK.device());
  Tensor chosen_GKE = Tensor::empty({groups, config_.top_k, experts}, DType::i32, expert_TK.device());
  k.count_choices(chosen_GKE, expert_TK, {.experts = experts, .group = group});
  if (whole) {
    data_.all_reduce(chosen_GKE, Reduce::sum);
    group *= data_.size();
  }

  Tensor load = Tensor::empty({groups, experts}, DType::f32, expert_TK.device());
  k.choice_fractions(load, chosen_GKE, counted, static_cast<float>(group));
  return load;
}

bool Router::pads(Device device) const {
  return config_.dispatch == Dispatch::padded ||
         (config_.dispatch == Dispatch::automatic && device.type == DeviceType::cuda);
}

Routing Router::operator()(const Variable& x_TD, Capacity capacity, float share) const {
  const std::int64_t tokens = x_TD.shape()[0], experts = config_.experts, top_k = config_.top_k;
  const bool enforced = capacity == Capacity::enforced;
  const std::int64_t group = enforced ? config_.group_size : std::max<std::int64_t>(tokens, 1);
  SY_CHECK(tokens % group == 0, "router: ", tokens, " tokens are no multiple of a routing group of ", group);
  const Device device = x_TD.device();
  const Kernels& k = kernels(device);

  const Variable logits_TE = linear_f32(x_TD, weight_);
  const Softmax scores = softmax(logits_TE);
  const TopK chosen = switchyard::top_k(scores.p_TE, top_k, config_.renormalise ? Renormalise::yes : Renormalise::no);

  const std::int64_t capacity_rows = enforced ? expert_capacity(config_.capacity_factor, top_k, group, experts) : 0;
  const Placement placement{
      .experts = experts, .group = group, .capacity = capacity_rows, .padded = capacity_rows > 0 && pads(device)};
  Routing routing;
  routing.weight_TK = chosen.weight_TK;
  routing.slot_TK = Tensor::empty({tokens, top_k}, DType::i32, device);
  routing.token_N = Tensor::empty({placement.rows(tokens, top_k)}, DType::i32, device);
  routing.count_E = Tensor::empty({experts}, DType::i32, device);
  routing.rows_each = placement.owned(tokens);
  k.place(routing.slot_TK, routing.token_N, routing.count_E, chosen.expert_TK, placement);

  const Variable balance =
      balance_loss(scores.p_TE, load_GE(chosen.expert_TK, group), static_cast<float>(experts) * share);
  const Variable z = z_loss(logits_TE, scores, share);
  routing.loss_1 =
      add(times(balance, static_cast<float>(config_.balance_loss)), times(z, static_cast<float>(config_.z_loss)));

  routing.stats = {.kept_E = routing.count_E,
                   .balance_1 = balance.value(),
                   .z_1 = z.value(),
                   .entropy_1 = Tensor::empty({1}, DType::f32, device),
                   .tokens = tokens,
                   .choices = tokens * top_k};
  k.entropy(routing.stats.entropy_1, scores.p_TE.value());
  return routing;
}

}  // namespace switchyard
