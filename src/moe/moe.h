#pragma once

#include "dist/mesh.h"
#include "moe/dispatcher.h"
#include "moe/experts.h"
#include "moe/router.h"

namespace switchyard {

struct MoeResult {
  Variable y_TD;
  Variable loss_1;  // balance and z-loss, with their coefficients
  RoutingStats stats;
};

// A mixture of experts in the place of a feed-forward layer:
//   y_t = sum_k weight[t, k] expert(t, k)(x_t)       a dropped choice adds nothing
// Where that is wanted (Overlap), half of the tokens travel while experts compute on the other half.
class Moe {
 public:
  // The config's d_ff and group_size are already resolved (not 0). The mesh outlives the layer.
  Moe(const MoeConfig& config, std::int64_t d_model, Activation activation, const std::string& name, Init in, Init out,
      Mesh& mesh, ParameterMaker& make);

  // x (T, d_model), `share` is 1 / tokens of the global batch
  MoeResult operator()(const Variable& x_TD, Capacity capacity, float share) const;

 private:
  std::int64_t parts(const Variable& x_TD, Capacity capacity) const;

  Overlap overlap_;
  std::int64_t group_size_;
  ProcessGroup& group_;
  Router router_;
  std::unique_ptr<Dispatcher> dispatcher_;
  Experts experts_;
};

}  // namespace switchyard
