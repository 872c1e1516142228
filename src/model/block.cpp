#include "model/block.h"

#include <cmath>

#include "autograd/recompute.h"
#include "autograd/scope.h"

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
  if (kind == Block::Kind::moe) return Moe(moe, model.d_model, name, in_init(model), out_init(model), mesh, make);
  return FeedForward(model.d_model, model.d_ff, model.activation, name, in_init(model), out_init(model), mesh, make);
}

RelativeBuckets relative_bias(const ModelConfig& m) {
  if (m.positions != Positions::relative_bias) return {};
  return {.count = m.relative_buckets, .max_distance = m.relative_max_distance};
}

Rope rope(const ModelConfig& m) {
  return {.theta = m.positions == Positions::rope ? static_cast<float>(m.rope_theta) : 0};
}

}  // namespace

Block::Block(const ModelConfig& m, const MoeConfig& moe, Kind kind, const std::string& name, Mesh& mesh,
             ProcessGroup& key_sharers, ParameterMaker& make)
    : attention_name_(name + ".self_attn"),
      ffn_name_(name + ".mlp"),
      attention_norm_(m.d_model, static_cast<float>(m.norm_eps), name + ".input_layernorm", make),
      attention_({.d_model = m.d_model,
                  .n_heads = m.n_heads,
                  .n_kv_heads = m.n_kv_heads,
                  .head_dim = m.head_dim,
                  .qk_norm = m.qk_norm,
                  .norm_eps = static_cast<float>(m.norm_eps),
                  .rope = rope(m),
                  .relative_bias = relative_bias(m)},
                 attention_name_, in_init(m), out_init(m), mesh, key_sharers, make),
      ffn_norm_(m.d_model, static_cast<float>(m.norm_eps), name + ".post_attention_layernorm", make),
      ffn_(make_ffn(m, moe, kind, ffn_name_, mesh, make)) {}

BlockResult Block::forward(const Residual& x, const Pass& pass, const RouterPass& own) const {
  const auto run = [&pass](Recompute piece, const Variable& x_TD, std::function<Recomputed(const Variable&)> body) {
    return pass.recompute == piece ? recompute(x_TD, std::move(body)) : body(x_TD);
  };
  const AddNorm in = attention_norm_(x.x_TD, x.y_TD);
  const Recomputed mixed = run(Recompute::attention, in.normed,
                               [this, batch = pass.batch, seq = pass.seq](const Variable& x_TD) -> Recomputed {
                                 const Scope scope(attention_name_.c_str());
                                 return {attention_(x_TD, batch, seq), {}};
                               });
  const AddNorm middle = ffn_norm_(in.sum, mixed.y);
  const auto stats = std::make_shared<std::optional<RoutingStats>>();  // written by each run of the body, alike
  const Recomputed out =
      run(Recompute::ffn, middle.normed, [this, own = own, stats](const Variable& x_TD) mutable -> Recomputed {
        const Scope scope(ffn_name_.c_str());
        if (const auto* dense = std::get_if<FeedForward>(&ffn_)) return {(*dense)(x_TD), {}};
        MoeResult moe = std::get<Moe>(ffn_)(x_TD, own);
        own.observe = false;  // once is enough
        *stats = std::move(moe.stats);
        return {moe.y_TD, moe.loss_1};
      });
  return {{middle.sum, out.y}, out.extra, *stats};
}

Router* Block::router() {
  Moe* moe = std::get_if<Moe>(&ffn_);
  return moe ? &moe->router() : nullptr;
}

// A block that runs again keeps one tensor, so it takes and gives the stream added up.
BlockResult Block::operator()(const Residual& x, const Pass& pass, const RouterPass& own) const {
  if (pass.recompute != Recompute::block) return forward(x, pass, own);
  const auto stats = std::make_shared<std::optional<RoutingStats>>();
  const Variable x_TD = x.y_TD ? add(x.x_TD, x.y_TD) : x.x_TD;
  const Recomputed result =
      recompute(x_TD, [this, pass, own = own, stats](const Variable& in_TD) mutable -> Recomputed {
        BlockResult block = forward({in_TD, {}}, pass, own);
        own.observe = false;
        *stats = std::move(block.stats);
        return {add(block.x.x_TD, block.x.y_TD), block.loss_1};
      });
  return {{result.y, {}}, result.extra, *stats};
}

}  // namespace switchyard
