#pragma once

#include "moe/choices.h"
#include "moe/routing_groups.h"

namespace switchyard {

// Rows that an expert takes of a routing group, ceil(capacity_factor * top_k * group / experts) but no more than there
// are tokens, and each of expert_groups together, by device_capacity; 0 (no limit) for a factor of 0. The config is
// resolved (model/placement.h).
std::int64_t expert_capacity(const MoeConfig& config, std::int64_t group);
std::int64_t device_capacity(const MoeConfig& config, std::int64_t group);

// Whether training sends all the rows that experts own, where they have a capacity.
bool pads(Dispatch dispatch, DeviceType device);

// Who finds room in the experts that were chosen, and by which right.
class Room {
 public:
  Room(const MoeConfig& config, std::uint64_t seed);

  // How the groups' tokens spread over experts. Training limits how many rows an expert takes, or a group of experts;
  // experts that choose are limited always. Only training pads, for only there every rank brings as many tokens.
  Placement placement(const RoutingGroups& groups, const RouterPass& pass, std::int64_t parts, bool pads) const;

  // i32 (A, K): 0 for a choice that found room, -1 for the others; not written where there is room for all. expert_AK:
  // the choices of all tokens of the groups, of which `chosen` are this rank's.
  Tensor admitted(const Tensor& expert_AK, const Scores& scores, const TopK& chosen, const RoutingGroups& groups,
                  const RouterPass& pass, const Placement& placement) const;

 private:
  bool is_capped(const Placement& placement) const;
  Tensor capped(const Tensor& expert_AK, const Tensor& gate_AE, const Placement& placement) const;
  void spare_some(const Tensor& slot_AK, const RoutingGroups& groups, const RouterPass& pass) const;

  MoeConfig config_;
  std::uint64_t seed_;
};

}  // namespace switchyard
