#include "layers/attention.h"

#include <algorithm>
#include <cmath>

#include "autograd/ops.h"
#include "dist/collectives.h"

namespace switchyard {

Attention::Attention(const AttentionConfig& c, const std::string& name, Init in, Init out, Mesh& mesh,
                     ProcessGroup& key_sharers, ParameterMaker& make)
    : config_(c),
      tensor_(*mesh.tensor),
      keys_({.queries = c.n_heads * c.head_dim / tensor_.size(), .keys = c.n_kv_heads * c.head_dim / tensor_.size()},
            key_sharers) {
  const std::int64_t ranks = tensor_.size(), rank = tensor_.rank(), q = c.n_heads * c.head_dim,
                     kv = c.n_kv_heads * c.head_dim;
  SY_CHECK(c.n_heads % ranks == 0 && kv % ranks == 0, c.n_heads, " heads with keys of ", kv,
           " columns do not divide over ", ranks, " ranks");
  config_.n_heads = c.n_heads / ranks;
  config_.n_kv_heads = std::max<std::int64_t>(1, c.n_kv_heads / ranks);

  const Box qkv{{}, {q + 2 * kv, c.d_model}};
  const auto mine = [&](std::int64_t begin, std::int64_t rows) {
    return cut(qkv, 0, begin + rows * rank / ranks, begin + rows * (rank + 1) / ranks);
  };
  qkv_ = make.part(name + ".qkv_proj.weight", qkv.shape, {mine(0, q), mine(q, kv), mine(q + kv, kv)},
                   {(q + 2 * kv) / ranks, c.d_model}, in);
  if (c.qk_norm) {
    q_norm_ = make.ones(name + ".q_norm.weight", {c.head_dim});
    k_norm_ = make.ones(name + ".k_norm.weight", {c.head_dim});
  }
  if (const std::int64_t buckets = c.relative_bias.count; buckets > 0) {
    const Box whole{{}, {c.n_heads, buckets}};
    const Box my_heads = cut(whole, 0, c.n_heads * rank / ranks, c.n_heads * (rank + 1) / ranks);
    const Init init{.std = 1 / std::sqrt(static_cast<double>(c.d_model))};  // T5's
    bias_HB_ = make.part(name + ".relative_attention_bias.weight", whole.shape, {my_heads}, my_heads.shape, init,
                         Decay::no, Replicas::data, Reads::f32);
  }
  const Box whole_out{{}, {c.d_model, q}};
  const Box my_out = cut(whole_out, 1, q * rank / ranks, q * (rank + 1) / ranks);
  out_ = make.part(name + ".o_proj.weight", whole_out.shape, {my_out}, my_out.shape, out);
}

Variable Attention::operator()(const Variable& x_TD, std::int64_t batch, std::int64_t seq) const {
  const AttentionShape shape{.batch = batch,
                             .seq = seq,
                             .n_heads = config_.n_heads,
                             .n_kv_heads = config_.n_kv_heads,
                             .head_dim = config_.head_dim};
  Variable qkv = keys_(linear(gather_rows(x_TD, tensor_), qkv_));
  if (config_.qk_norm || config_.rope.theta > 0)
    qkv = qk_norm_rope(qkv, q_norm_, k_norm_, config_.norm_eps, shape, config_.rope);
  return sum_rows(linear(attention(qkv, shape, bias_HB_, config_.relative_bias), out_), tensor_);
}

}  // namespace switchyard
