#include "moe/room.h"

#include <algorithm>
#include <cmath>

namespace switchyard {
namespace {

// Of the choices of a group each of so many takers has room for: ceil(factor * choices / takers).
std::int64_t room_for(double factor, std::int64_t choices, std::int64_t takers) {
  // The product is exact for the sizes at hand; a factor such as 1.1 is not, and must not round a whole number up.
  const double rows = factor * static_cast<double>(choices) / static_cast<double>(takers);
  return static_cast<std::int64_t>(std::ceil(rows - 1e-9));
}

}  // namespace

std::int64_t expert_capacity(const MoeConfig& config, std::int64_t group) {
  return std::min(room_for(config.router.capacity_factor, config.router.top_k * group, config.experts), group);
}

std::int64_t device_capacity(const MoeConfig& config, std::int64_t group) {
  return room_for(config.router.device_capacity, config.router.top_k * group, config.router.expert_groups);
}

bool pads(Dispatch dispatch, DeviceType device) {
  return dispatch == Dispatch::padded || (dispatch == Dispatch::automatic && device == DeviceType::cuda);
}

Room::Room(const MoeConfig& config, std::uint64_t seed) : config_(config), seed_(seed) {}

Placement Room::placement(const RoutingGroups& groups, const RouterPass& pass, std::int64_t parts, bool pads) const {
  const RouterConfig& router = config_.router;
  Placement placement{.experts = config_.experts, .group = groups.size(), .parts = parts};
  if (pass.trains() && router.device_capacity > 0) {
    placement.members = config_.experts / router.expert_groups;
    placement.capacity = device_capacity(config_, groups.size());
  } else if (pass.trains() || router.choice == Choosing::experts) {
    placement.capacity = expert_capacity(config_, groups.size());
    placement.padded = pass.trains() && placement.capacity > 0 && pads;
  }
  return placement;
}

// A window so short that each expert's one row is too many for the cap knows none.
bool Room::is_capped(const Placement& placement) const {
  return config_.router.expert_cap > 0 &&
         placement.experts * placement.capacity <= config_.router.expert_cap * placement.group;
}

// The scores of choices by which experts that choose go where a token may have so many experts only.
Tensor Room::capped(const Tensor& expert_AK, const Tensor& gate_AE, const Placement& placement) const {
  const Kernels& k = kernels(gate_AE.device());
  Tensor by_expert_AE = empty_like(gate_AE), score_AK = Tensor::empty(expert_AK.shape(), DType::f32, gate_AE.device());
  k.capped_scores(by_expert_AE, gate_AE, placement, {.experts = static_cast<float>(config_.router.expert_cap)});
  k.choose(score_AK, expert_AK, by_expert_AE, Renormalise::no);
  return score_AK;
}

// Of some groups nothing is dropped, the same ones in every layer.
void Room::spare_some(const Tensor& slot_AK, const RoutingGroups& groups, const RouterPass& pass) const {
  const PhiloxKey key = philox_key(seed_, text("spared groups, step ", pass.step));
  const std::int64_t first = (pass.first_token - groups.first()) / groups.size();
  for (std::int64_t g = 0; g < slot_AK.dim(0) / groups.size(); ++g)
    if (uniform(philox(key, static_cast<std::uint64_t>(first + g))[0]) < config_.router.spared_groups) {
      Tensor spared = slot_AK.rows(g * groups.size(), (g + 1) * groups.size());
      kernels(slot_AK.device()).zero(spared);
    }
}

Tensor Room::admitted(const Tensor& expert_AK, const Scores& scores, const TopK& chosen, const RoutingGroups& groups,
                      const RouterPass& pass, const Placement& placement) const {
  const Kernels& k = kernels(expert_AK.device());
  Tensor slot_AK = Tensor::empty(expert_AK.shape(), DType::i32, expert_AK.device());
  if (placement.capacity == 0) return slot_AK;
  if (config_.router.choice == Choosing::experts) {
    const Tensor score_AK = is_capped(placement) ? capped(expert_AK, groups.all(scores.gate_TE.value()), placement)
                                                 : groups.all(chosen.weight_TK.value());
    k.admit_by_priority(slot_AK, expert_AK, score_AK, placement, Priority::score);
  } else if (config_.router.device_capacity > 0) {
    Tensor score_TK = empty_like(chosen.weight_TK.value());  // which weights may be shares of
    k.choose(score_TK, chosen.expert_TK, scores.gate_TE.value(), Renormalise::no);
    k.admit_by_priority(slot_AK, expert_AK, groups.all(score_TK), placement, Priority::score);
    spare_some(slot_AK, groups, pass);
  } else if (config_.router.admission == Admission::priority) {
    const Tensor score_A1 = groups.all(best_scores(scores.gate_TE.value()));
    k.admit_by_priority(slot_AK, expert_AK, score_A1, placement, Priority::choice_then_score);
  } else {
    k.admit(slot_AK, expert_AK, placement);
  }
  return slot_AK;
}

}  // namespace switchyard
