#pragma once

#include <optional>

#include "dist/mesh.h"
#include "layers/feed_forward.h"
#include "moe/dispatcher.h"
#include "moe/experts.h"
#include "moe/router.h"

namespace switchyard {

struct MoeResult {
  Variable y_TD;
  Variable loss_1;  // of the router
  RoutingStats stats;
};

// A mixture of experts in the place of a feed-forward layer:
//   y_t = sum_k weight[t, k] expert(t, k)(x_t)       a dropped choice adds nothing
// and the shared experts' outputs, where there are some; several of them are one wider feed-forward layer. Both have
// the experts' activation. Where that is wanted (Overlap), half of the tokens travel while experts compute on the other
// half.
class Moe {
 public:
  // The config is resolved (model/placement.h). The mesh outlives the layer.
  Moe(const MoeConfig& config, std::int64_t d_model, const std::string& name, Init in, Init out, Mesh& mesh,
      ParameterMaker& make);

  Router& router() { return router_; }

  // x (T, d_model)
  MoeResult operator()(const Variable& x_TD, const RouterPass& pass) const;

 private:
  std::int64_t parts(const Variable& x_TD, const RouterPass& pass) const;
  Tensor choice_ids(const Routing& routing, const RouterPass& pass) const;

  Overlap overlap_;
  std::int64_t group_size_;
  double expert_dropout_;
  std::string name_;
  std::uint64_t seed_;
  ProcessGroup& group_;
  Router router_;
  std::unique_ptr<Dispatcher> dispatcher_;
  Experts experts_;
  std::optional<FeedForward> shared_;
};

}  // namespace switchyard
