#pragma once

#include <string>

#include "dist/mesh.h"
#include "layers/parameter_maker.h"
#include "layers/shared_keys.h"
#include "tensor/kernels.h"

namespace switchyard {

// Sizes and constants of one attention layer.
struct AttentionConfig {
  std::int64_t d_model = 0, n_heads = 0, n_kv_heads = 0, head_dim = 0;
  bool qk_norm = true;
  float norm_eps = 1e-6f;
  Rope rope{};                      // theta 0: none
  RelativeBuckets relative_bias{};  // count 0: none
};

// Causal grouped-query self-attention with per-head RMSNorm of queries and keys; projections have no biases. Queries,
// keys and values come from one fused projection. Positions are rotary, or a learnt number for each head and bucket of
// distances that is added to the scores.
//
// The heads are cut over the tensor group (Shoeybi et al., arXiv 1909.08053, section 3): each rank gathers all rows,
// attends with its n_heads / tensor queries and the keys that they use, and gets its own rows of the sum back.
class Attention {
 public:
  // n_heads and the columns of keys divide over the tensor group. Mesh and sharers (make_key_sharers) outlive the
  // layer.
  Attention(const AttentionConfig& config, const std::string& name, Init in, Init out, Mesh& mesh,
            ProcessGroup& key_sharers, ParameterMaker& make);

  // x: this rank's rows of (batch * seq, d_model), sequence by sequence -> the same shape
  Variable operator()(const Variable& x_TD, std::int64_t batch, std::int64_t seq) const;

 private:
  AttentionConfig config_;  // of this rank: its heads
  ProcessGroup& tensor_;
  SharedKeys keys_;
  Variable qkv_, q_norm_, k_norm_, bias_HB_, out_;
};

}  // namespace switchyard
