#include "model/transformer.h"

#include "autograd/scope.h"
#include "model/placement.h"

namespace switchyard {

Transformer::Transformer(const ModelConfig& model, const MoeConfig& moe, DType rows, std::uint64_t seed, Device device,
                         Mesh& mesh)
    : rows_(rows),
      device_(device),
      tensor_(*mesh.tensor),
      key_sharers_(make_key_sharers(model.n_kv_heads, tensor_)),
      vocabulary_(model.vocab_size, tensor_) {
  ParameterMaker make(seed, device);
  const Init init{.std = model.init_std};
  embedding_ = vocabulary_.table("model.embed_tokens.weight", model.d_model, init, make);
  const std::vector<bool> is_moe = moe_blocks(moe, model.n_layers);
  for (std::size_t i = 0; i < is_moe.size(); ++i)
    blocks_.emplace_back(model, moe, is_moe[i] ? Block::Kind::moe : Block::Kind::dense, text("model.layers.", i), mesh,
                         *key_sharers_, make);
  norm_.emplace(model.d_model, static_cast<float>(model.norm_eps), "model.norm", make);
  head_ = model.tied_embeddings ? embedding_ : vocabulary_.table("lm_head.weight", model.d_model, init, make);
  parameters_ = make.take();
}

Transformer::Trunk Transformer::trunk(const Tensor& token_T, const Pass& pass) const {
  SY_CHECK(token_T.numel() == pass.batch * pass.seq, token_T.numel(), " tokens for ", pass.batch, " sequences of ",
           pass.seq);
  Trunk trunk;
  Residual x = [&]() -> Residual {
    const Scope scope("model.embed_tokens");
    return {vocabulary_.embed(embedding_, token_T, rows_), {}};
  }();
  for (const Block& block : blocks_) {
    auto [out, loss_1, stats] = block(x, pass);
    x = out;
    if (loss_1) trunk.loss_1 = trunk.loss_1 ? add(trunk.loss_1, loss_1) : loss_1;
    if (stats) trunk.stats.push_back(*stats);
  }
  trunk.x_TD = (*norm_)(x.x_TD, x.y_TD).normed;
  return trunk;
}

ModelResult Transformer::operator()(const Tensor& token_T, const Tensor& target_T, const Pass& pass) const {
  Trunk trunk = this->trunk(token_T, pass);
  const Scope scope("lm_head");
  const HeadLoss head = vocabulary_.loss(trunk.x_TD, head_, target_T, pass.share);
  return {.loss_1 = trunk.loss_1 ? add(head.loss_1, trunk.loss_1) : head.loss_1,
          .lm_loss_1 = head.loss_1.value(),
          .token_loss_T = head.token_loss_T,
          .stats = std::move(trunk.stats)};
}

Tensor Transformer::next_logits(const Tensor& token_T, std::int64_t batch, std::int64_t seq) const {
  SY_CHECK(tensor_.size() == 1, "next_logits: the vocabulary is cut over ", tensor_.size(), " ranks");
  NoGrad guard;
  const Trunk trunk = this->trunk(token_T, {.batch = batch, .seq = seq, .share = 0, .capacity = Capacity::unlimited});
  std::vector<std::int32_t> last;
  for (std::int64_t b = 0; b < batch; ++b) last.push_back(static_cast<std::int32_t>((b + 1) * seq - 1));
  const Kernels& k = kernels(device_);
  Tensor x_BD = Tensor::empty({batch, trunk.x_TD.shape()[1]}, rows_, device_);
  k.gather_rows(x_BD, trunk.x_TD.value(), Tensor::of(std::span<const std::int32_t>(last), {batch}, device_));
  Tensor logits_BV = Tensor::empty({batch, head_.shape()[0]}, DType::f32, device_);
  k.weight_matmul(logits_BV, x_BD, head_.weight(rows_), Trans::yes);
  return logits_BV;
}

}  // namespace switchyard
