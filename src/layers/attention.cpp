#include "layers/attention.h"

namespace switchyard {

Attention::Attention(const AttentionConfig& c, const std::string& name, Init in, Init out, ParameterMaker& make)
    : config_(c) {
  const std::int64_t q = c.n_heads * c.head_dim, kv = c.n_kv_heads * c.head_dim;
  qkv_ = make.matrix(name + ".qkv_proj.weight", {q + 2 * kv, c.d_model}, in);
  if (c.qk_norm) {
    q_norm_ = make.ones(name + ".q_norm.weight", {c.head_dim});
    k_norm_ = make.ones(name + ".k_norm.weight", {c.head_dim});
  }
  out_ = make.matrix(name + ".o_proj.weight", {c.d_model, q}, out);
}

Variable Attention::operator()(const Variable& x_TD, std::int64_t batch, std::int64_t seq) const {
  const AttentionShape shape{.batch = batch,
                             .seq = seq,
                             .n_heads = config_.n_heads,
                             .n_kv_heads = config_.n_kv_heads,
                             .head_dim = config_.head_dim};
  Variable qkv = linear(x_TD, qkv_);
  qkv = qk_norm_rope(qkv, q_norm_, k_norm_, config_.norm_eps, shape, {.theta = config_.rope_theta});
  return linear(attention(qkv, shape), out_);
}

}  // namespace switchyard
