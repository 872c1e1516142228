#pragma once

#include <memory>
#include <optional>
#include <string>

#include "dist/mesh.h"
#include "moe/room.h"
#include "moe/router_losses.h"

namespace switchyard {

// Decides which experts each token goes to, in five steps that a configuration chooses apart: scores (gate.h), choices
// (choices.h), admission to experts that have room for so many (room.h), weights, losses (router_losses.h).
// docs/routers.md says which of them make which published router.
class Router {
 public:
  // The mesh outlives the router.
  Router(const MoeConfig& config, std::int64_t d_model, const std::string& name, Mesh& mesh, ParameterMaker& make);

  // x (T, d_model). With capacity enforced, the rows of the tensor group together are a multiple of the routing group,
  // which may lie over several of its ranks. Else the tokens of the call are one group and nothing is dropped; but
  // experts that choose always do so in groups, those of training or the pass's windows. Several `parts` are equal, and
  // of whole routing groups.
  Routing operator()(const Variable& x_TD, const RouterPass& pass, std::int64_t parts = 1) const;

  // The same from scores; none where tokens are hashed, which go by pass.token_T.
  Routing route(const Scores& scores, const RouterPass& pass, std::int64_t parts = 1) const;

  // Keeps the weights as they are: passes that observe compare with them what tokens would choose.
  void remember() {
    if (gate_) gate_->remember();
  }

  // Once all micro-batches of a step have come by: moves the bias, alike on every rank. All ranks of the mesh call.
  void end_step();

  // f32 (experts): the bias, which is state and no parameter; empty where there is none.
  const Tensor& bias() const { return state_->bias_E; }

 private:
  // What a pass leaves behind for the step.
  struct State {
    Tensor bias_E;
    StepLoad chosen;  // of each expert, by the tokens of this rank
    StepShares shares;
  };

  RoutingGroups groups_of(std::int64_t tokens, const RouterPass& pass) const;
  TopK choose(const Scores& scores, const RouterPass& pass) const;
  void place(Routing& routing, const Tensor& expert_AK, const Tensor& slot_AK, const RoutingGroups& groups,
             const Placement& placement) const;
  Observation observed(const Scores& scores, const Routing& routing, const Tensor& expert_TK) const;

  MoeConfig config_;
  std::string name_;
  std::uint64_t seed_;
  Device device_;
  ProcessGroup &tensor_, &tokens_;
  Room room_;
  std::optional<Gate> gate_;  // none where tokens are hashed
  std::unique_ptr<State> state_ = std::make_unique<State>();
};

}  // namespace switchyard
