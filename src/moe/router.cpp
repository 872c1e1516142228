#include "moe/router.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <vector>

namespace switchyard {

std::int64_t expert_capacity(double factor, std::int64_t top_k, std::int64_t group, std::int64_t experts) {
  // The product is exact for the sizes at hand; a factor such as 1.1 is not, and must not round a whole number up.
  const double rows = factor * static_cast<double>(top_k * group) / static_cast<double>(experts);
  return static_cast<std::int64_t>(std::ceil(rows - 1e-9));
}

Router::Router(const MoeConfig& config, std::int64_t d_model, const std::string& name, Mesh& mesh, ParameterMaker& make)
    : config_(config), tensor_(*mesh.tensor), tokens_(*mesh.tokens) {
  const double std = std::sqrt(config.router_init_scale / static_cast<double>(d_model));
  weight_ = make.matrix(name + ".gate.weight", {config.experts, d_model}, {.std = std, .limit = 2}, Decay::no);
}

// The choices of all tokens of the tensor group, in their order.
Tensor Router::chosen_by_all(const Tensor& expert_TK) const {
  Tensor expert_AK =
      Tensor::empty(expert_TK.shape().with(0, expert_TK.dim(0) * tensor_.size()), DType::i32, expert_TK.device());
  tensor_.all_gather(expert_AK, expert_TK);
  return expert_AK;
}

// f_ge = choices of expert e in group g / tokens of the group. Where expert_AK holds more than this rank's tokens, G
// counts equal parts of these instead, with the f of the group that each lies in.
Tensor Router::load_GE(const Tensor& expert_AK, std::int64_t group, std::int64_t tokens) const {
  const Kernels& k = kernels(expert_AK.device());
  const Device device = expert_AK.device();
  const std::int64_t all = expert_AK.dim(0), groups = std::max<std::int64_t>(1, all / group);
  Tensor chosen_GKE = Tensor::empty({groups, config_.top_k, config_.experts}, DType::i32, device);
  k.count_choices(chosen_GKE, expert_AK, {.experts = config_.experts, .group = group});
  Tensor load = Tensor::empty({groups, config_.experts}, DType::f32, device);
  k.choice_fractions(load, chosen_GKE, counted(), static_cast<float>(group));
  if (all == tokens) return load;

  const std::int64_t part = std::gcd(group, tokens), first = tokens * tensor_.rank();
  std::vector<std::int32_t> group_of;
  for (std::int64_t t = first; t < first + tokens; t += part) group_of.push_back(std::int32_t(t / group));
  Tensor mine = Tensor::empty({std::ssize(group_of), config_.experts}, DType::f32, device);
  k.gather_rows(mine, load, Tensor::of(std::span<const std::int32_t>(group_of), {std::ssize(group_of)}, device));
  return mine;
}

// One row over the micro-batch of all ranks.
Tensor Router::micro_batch_load_GE(const Tensor& expert_TK) const {
  const Kernels& k = kernels(expert_TK.device());
  const std::int64_t tokens = std::max<std::int64_t>(expert_TK.dim(0), 1);
  Tensor chosen_GKE = Tensor::empty({1, config_.top_k, config_.experts}, DType::i32, expert_TK.device());
  k.count_choices(chosen_GKE, expert_TK, {.experts = config_.experts, .group = tokens});
  tokens_.all_reduce(chosen_GKE, Reduce::sum);
  Tensor load = Tensor::empty({1, config_.experts}, DType::f32, expert_TK.device());
  k.choice_fractions(load, chosen_GKE, counted(), static_cast<float>(tokens * tokens_.size()));
  return load;
}

std::int64_t Router::counted() const { return config_.balance_counts == BalanceCounts::first ? 1 : config_.top_k; }

bool Router::pads(Device device) const {
  return config_.dispatch == Dispatch::padded ||
         (config_.dispatch == Dispatch::automatic && device.type == DeviceType::cuda);
}

Routing Router::operator()(const Variable& x_TD, Capacity capacity, float share, std::int64_t parts) const {
  const std::int64_t tokens = x_TD.shape()[0], experts = config_.experts, top_k = config_.top_k;
  const bool enforced = capacity == Capacity::enforced;
  const std::int64_t group = enforced ? config_.group_size : std::max<std::int64_t>(tokens, 1);
  SY_CHECK(tokens * tensor_.size() % group == 0, "router: ", tokens, " tokens on each of ", tensor_.size(),
           " ranks are no multiple of a routing group of ", group);
  SY_CHECK(parts == 1 || tokens % (parts * group) == 0, "router: ", tokens, " tokens in groups of ", group,
           " do not make ", parts, " parts");
  const Device device = x_TD.device();
  const Kernels& k = kernels(device);

  const Variable logits_TE = linear_f32(x_TD, weight_);
  const Softmax scores = softmax(logits_TE);
  const TopK chosen = switchyard::top_k(scores.p_TE, top_k, config_.renormalise ? Renormalise::yes : Renormalise::no);

  const std::int64_t capacity_rows = enforced ? expert_capacity(config_.capacity_factor, top_k, group, experts) : 0;
  const Placement placement{.experts = experts,
                            .group = group,
                            .capacity = capacity_rows,
                            .padded = capacity_rows > 0 && pads(device),
                            .parts = parts};
  const bool has_whole_groups = tokens % group == 0;
  const Tensor expert_AK = has_whole_groups ? chosen.expert_TK : chosen_by_all(chosen.expert_TK);
  const std::int64_t first = has_whole_groups ? 0 : tokens * tensor_.rank();
  Tensor slot_AK = Tensor::empty(expert_AK.shape(), DType::i32, device);
  if (capacity_rows > 0) k.admit(slot_AK, expert_AK, placement);

  Routing routing;
  routing.weight_TK = chosen.weight_TK;
  routing.slot_TK = slot_AK.rows(first, first + tokens);
  routing.token_N = Tensor::empty({placement.rows(tokens, top_k)}, DType::i32, device);
  routing.count_PE = Tensor::empty({parts, experts}, DType::i32, device);
  routing.rows_each = placement.owned(tokens);
  k.place(routing.slot_TK, routing.token_N, routing.count_PE, chosen.expert_TK, placement);

  const Tensor load = config_.balance_scope == BalanceScope::micro_batch ? micro_batch_load_GE(chosen.expert_TK)
                                                                         : load_GE(expert_AK, group, tokens);
  const Variable balance = balance_loss(scores.p_TE, load, static_cast<float>(experts) * share);
  const Variable z = z_loss(logits_TE, scores, share);
  routing.loss_1 =
      add(times(balance, static_cast<float>(config_.balance_loss)), times(z, static_cast<float>(config_.z_loss)));

  routing.stats = {.kept_PE = routing.count_PE,
                   .balance_1 = balance.value(),
                   .z_1 = z.value(),
                   .entropy_1 = Tensor::empty({1}, DType::f32, device),
                   .tokens = tokens,
                   .choices = tokens * top_k};
  k.entropy(routing.stats.entropy_1, scores.p_TE.value());
  return routing;
}

}  // namespace switchyard
