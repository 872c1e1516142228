#pragma once

#include <string>

#include "autograd/ops.h"
#include "dist/mesh.h"
#include "layers/parameter_maker.h"
#include "moe/config.h"
#include "moe/routing.h"

namespace switchyard {

// Rows that an expert takes of a group: ceil(factor * top_k * group / experts); 0 (dropless) for a factor of 0.
std::int64_t expert_capacity(double factor, std::int64_t top_k, std::int64_t group, std::int64_t experts);

// Training drops what exceeds an expert's capacity; evaluation and generation drop nothing.
enum class Capacity : bool { unlimited, enforced };

// Softmax top-k routing, all in fp32 whatever the rows are (selective precision: Switch, arXiv 2101.03961,
// section 2.4).
//   p = softmax(W x)                weight_k = p_k, or p_k / sum of the chosen (GShard, GLaM, Mixtral), before capacity
//   balance = coefficient E sum_e f_e P_e   f_e: share of tokens that chose e, before capacity; P_e: mean of p_e
//             (Switch section 2.2; with counts over all choices it is Mixtral's, K when uniform)
//   z       = coefficient mean_t logsumexp(W x_t)^2   (ST-MoE, arXiv 2202.08906)
class Router {
 public:
  // The mesh outlives the router.
  Router(const MoeConfig& config, std::int64_t d_model, const std::string& name, Mesh& mesh, ParameterMaker& make);

  // x (T, d_model). `share` is 1 / tokens of the global batch, so that losses sum up. With capacity enforced, the rows
  // of the tensor group together are a multiple of the routing group, which may lie over several of its ranks: these
  // then tell each other what they chose. Else the tokens of the call are one group and nothing is dropped. Several
  // `parts` are equal, and of whole routing groups.
  Routing operator()(const Variable& x_TD, Capacity capacity, float share, std::int64_t parts = 1) const;

 private:
  bool pads(Device device) const;
  std::int64_t counted() const;  // choices that count as load
  Tensor chosen_by_all(const Tensor& expert_TK) const;
  Tensor load_GE(const Tensor& expert_AK, std::int64_t group, std::int64_t tokens) const;
  Tensor micro_batch_load_GE(const Tensor& expert_TK) const;

  MoeConfig config_;
  ProcessGroup &tensor_, &tokens_;
  Variable weight_;
};

}  // namespace switchyard
