#pragma once

#include <string>

#include "autograd/ops.h"
#include "layers/parameter_maker.h"

namespace switchyard {

// Sizes and constants of one attention layer.
struct AttentionConfig {
  std::int64_t d_model = 0, n_heads = 0, n_kv_heads = 0, head_dim = 0;
  bool qk_norm = true;
  float norm_eps = 1e-6f, rope_theta = 10000;
};

// Causal grouped-query self-attention with per-head RMSNorm of queries and keys, and rotary positions; no biases.
// Queries, keys and values come from one fused projection.
class Attention {
 public:
  Attention(const AttentionConfig& config, const std::string& name, Init in, Init out, ParameterMaker& make);

  // x (batch * seq, d_model), sequence by sequence -> the same shape
  Variable operator()(const Variable& x_TD, std::int64_t batch, std::int64_t seq) const;

 private:
  AttentionConfig config_;
  Variable qkv_, q_norm_, k_norm_, out_;
};

}  // namespace switchyard
