#include "model/block.h"

#include <cmath>

#include "autograd/recompute.h"

namespace switchyard {
namespace {

Init in_init(const ModelConfig& model) { return {.std = model.init_std}; }

// Projections back into the residual stream start smaller by sqrt(2 n_layers), so that its variance does not grow with
// depth (GPT-2, section 2.3).
Init out_init(const ModelConfig& model) {
  return {.std = model.init_std / std::sqrt(2.0 * static_cast<double>(model.n_layers))};
}

std::variant<FeedForward, Moe> make_ffn(const ModelConfig& model, const MoeConfig& moe, Block::Kind kind,
                                        const std::string& name, Mesh& mesh, ParameterMaker& make) {
  if (kind == Block::Kind::moe)
    return Moe(moe, model.d_model, model.activation, name, in_init(model), out_init(model), mesh, make);
  return FeedForward(model.d_model, model.d_ff, model.activation, name, in_init(model), out_init(model), make);
}

}  // namespace

Block::Block(const ModelConfig& m, const MoeConfig& moe, Kind kind, const std::string& name, Mesh& mesh,
             ParameterMaker& make)
    : attention_norm_(m.d_model, static_cast<float>(m.norm_eps), name + ".input_layernorm", make),
      attention_({.d_model = m.d_model,
                  .n_heads = m.n_heads,
                  .n_kv_heads = m.n_kv_heads,
                  .head_dim = m.head_dim,
                  .qk_norm = m.qk_norm,
                  .norm_eps = static_cast<float>(m.norm_eps),
                  .rope_theta = static_cast<float>(m.rope_theta)},
                 name + ".self_attn", in_init(m), out_init(m), make),
      ffn_norm_(m.d_model, static_cast<float>(m.norm_eps), name + ".post_attention_layernorm", make),
      ffn_(make_ffn(m, moe, kind, name + ".mlp", mesh, make)) {}

BlockResult Block::forward(const Variable& x_TD, const Pass& pass) const {
  const Variable h_TD = add(x_TD, attention_(attention_norm_(x_TD), pass.batch, pass.seq));
  const Variable normed_TD = ffn_norm_(h_TD);
  if (const auto* dense = std::get_if<FeedForward>(&ffn_)) return {add(h_TD, (*dense)(normed_TD)), {}, {}};
  auto [y_TD, loss_1, stats] = std::get<Moe>(ffn_)(normed_TD, pass.capacity, pass.share);
  return {add(h_TD, y_TD), loss_1, stats};
}

BlockResult Block::operator()(const Variable& x_TD, const Pass& pass) const {
  if (pass.recompute == Recompute::none) return forward(x_TD, pass);
  const auto stats = std::make_shared<std::optional<RoutingStats>>();  // written by each run of the body, always alike
  const Recomputed result = recompute(x_TD, [this, pass, stats](const Variable& x) -> Recomputed {
    BlockResult block = forward(x, pass);
    *stats = std::move(block.stats);
    return {block.x_TD, block.loss_1};
  });
  return {result.y, result.extra, *stats};
}

}  // namespace switchyard
