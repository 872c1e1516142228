#pragma once

#include <vector>

#include "dist/call.h"
#include "train/state_plan.h"

namespace switchyard {

// The groups of a Mesh, as it names them.
enum class Group { world, data, tensor, tokens, experts, expert_data, expert_tensor, previous, next, ends };
inline constexpr int kGroups = 10;
const char* name_of(Group group);

// How a group's ranks lie: `size` of them, `stride` apart.
struct GroupShape {
  std::int64_t size, stride;
};
// Of the rank of a stage (the first, a middle or the last one); resolved.
GroupShape shape_of(Group group, const ParallelConfig& resolved, int stage);

// When bytes travel: in each micro-batch's forward or backward pass; gradients once a step, beside the last backward
// pass; what a step ends with; and new values, beside the next forward pass.
enum class Phase { forward, backward, gradients, update, values };

struct PlannedTraffic {
  Group group;
  Collective collective;
  Phase phase;
  std::int64_t calls, bytes;  // of one step; that the rank sends
};

// What a rank sends in a step, by the formulas of docs/communication.md. Where dispatch is exact, as much as an even
// load, or `imbalance`, would have it. The configuration is resolved; groups of one send nothing and are left out.
std::vector<PlannedTraffic> plan_traffic(const Config& config, int rank, const Assumptions& assumptions = {});
// Its two parts: what micro-batches send, and what a step does once.
std::vector<PlannedTraffic> plan_pass_traffic(const Config& config, int rank, const Stage& blocks,
                                              const StatePlan& state, const Assumptions& assumptions);
std::vector<PlannedTraffic> plan_state_traffic(const Config& config, int rank, const StatePlan& state);

}  // namespace switchyard
