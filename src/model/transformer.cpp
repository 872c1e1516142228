#include "model/transformer.h"

#include <algorithm>

#include "autograd/scope.h"
#include "model/placement.h"

namespace switchyard {

Transformer::Transformer(const ModelConfig& model, const MoeConfig& moe, DType rows, std::uint64_t seed, Device device,
                         Mesh& mesh, const std::vector<Stage>& stages)
    : rows_(rows),
      device_(device),
      d_model_(model.d_model),
      tensor_(*mesh.tensor),
      key_sharers_(make_key_sharers(model.n_kv_heads, tensor_)),
      vocabulary_(model.vocab_size, tensor_),
      experts_(moe.experts) {
  SY_CHECK(std::ssize(stages) == mesh.stages() && stages.back().end == model.n_layers, stages.size(), " stages of ",
           stages.back().end, " blocks, the mesh has ", mesh.stages(), ", the model ", model.n_layers);
  const Stage mine = stages[static_cast<std::size_t>(mesh.stage())];
  const bool is_first = mesh.is_first(), is_last = mesh.is_last();
  ParameterMaker make(seed, device);
  const Init init{.std = model.init_std};
  if (is_first || (is_last && model.tied_embeddings))
    embedding_ = vocabulary_.table("model.embed_tokens.weight", model.d_model, init, make,
                                   model.tied_embeddings && is_first != is_last ? Replicas::ends : Replicas::data);
  const std::vector<bool> is_moe = moe_blocks(moe, model.n_layers);
  for (std::int64_t i = mine.begin; i < mine.end; ++i)
    blocks_.emplace_back(model, moe, is_moe[static_cast<std::size_t>(i)] ? Block::Kind::moe : Block::Kind::dense,
                         text("model.layers.", i), mesh, *key_sharers_, make);
  first_block_ = mine.begin;
  moe_before_ = std::count(is_moe.begin(), is_moe.begin() + mine.begin, true);
  moe_after_ = std::count(is_moe.begin() + mine.end, is_moe.end(), true);
  if (is_last) {
    norm_.emplace(model.d_model, static_cast<float>(model.norm_eps), "model.norm", make);
    head_ = model.tied_embeddings ? embedding_ : vocabulary_.table("lm_head.weight", model.d_model, init, make);
  }
  parameters_ = make.take();
}

Transformer::Trunk Transformer::trunk(const Tensor& token_T, const Variable& in_RD, const Pass& pass) const {
  SY_CHECK(token_T.numel() == pass.batch * pass.seq, token_T.numel(), " tokens for ", pass.batch, " sequences of ",
           pass.seq);
  const std::int64_t own = token_T.numel() / tensor_.size(), first = own * tensor_.rank();
  const RouterPass router_pass{.capacity = pass.capacity,
                               .share = pass.share,
                               .step = pass.step,
                               .first_token = pass.first_token + first,
                               .balance_scale = pass.balance_scale,
                               .observe = pass.observe,
                               .record = pass.record,
                               .window = pass.generates ? pass.seq : 0,
                               .token_T = token_T.rows(first, first + own)};
  Trunk trunk;
  trunk.x = {in_RD, {}};
  if (!in_RD) {
    const Scope scope("model.embed_tokens");
    trunk.x.x_TD = vocabulary_.embed(embedding_, token_T, rows_);
  }
  const auto elsewhere = [&](std::int64_t blocks) {
    for (; blocks > 0; --blocks) trunk.stats.push_back(RoutingStats::none(experts_, device_));
  };
  elsewhere(moe_before_);
  for (const Block& block : blocks_) {
    auto [out, loss_1, stats] = block(trunk.x, pass, router_pass);
    trunk.x = out;
    if (loss_1) trunk.loss_1 = trunk.loss_1 ? add(trunk.loss_1, loss_1) : loss_1;
    if (stats) trunk.stats.push_back(*stats);
  }
  elsewhere(moe_after_);
  return trunk;
}

ModelResult Transformer::operator()(const Tensor& token_T, const Tensor& target_T, const Pass& pass,
                                    const Variable& in_RD) const {
  Trunk trunk = this->trunk(token_T, in_RD, pass);
  const auto& [x_TD, y_TD] = trunk.x;
  if (!norm_) {
    const Variable sum = y_TD ? add(x_TD, y_TD) : x_TD;
    return {.out = trunk.loss_1 ? with_loss(sum, trunk.loss_1) : sum,
            .lm_loss_1 = Tensor::zeros({1}, DType::f32, device_),
            .stats = std::move(trunk.stats)};
  }
  const Variable normed = (*norm_)(x_TD, y_TD).normed;
  const Scope scope("lm_head");
  const HeadLoss head = vocabulary_.loss(normed, head_, target_T, pass.share);
  return {.out = trunk.loss_1 ? add(head.loss_1, trunk.loss_1) : head.loss_1,
          .lm_loss_1 = head.loss_1.value(),
          .stats = std::move(trunk.stats)};
}

std::vector<NamedState> Transformer::states() {
  std::vector<NamedState> states;
  for (std::size_t i = 0; i < blocks_.size(); ++i)
    if (Router* router = blocks_[i].router(); router && router->bias())
      states.push_back(
          {text("model.layers.", first_block_ + std::int64_t(i), ".mlp.gate.e_score_correction_bias"), router->bias()});
  return states;
}

void Transformer::end_step() {
  for (Block& block : blocks_)
    if (Router* router = block.router()) router->end_step();
}

void Transformer::remember_routers() {
  for (Block& block : blocks_)
    if (Router* router = block.router()) router->remember();
}

Tensor Transformer::next_logits(const Tensor& token_T, std::int64_t batch, std::int64_t seq) const {
  SY_CHECK(tensor_.size() == 1 && embedding_ && norm_, "next_logits: the model is cut over several ranks");
  NoGrad guard;
  const Trunk trunk = this->trunk(
      token_T, {}, {.batch = batch, .seq = seq, .share = 0, .capacity = Capacity::unlimited, .generates = true});
  const Variable normed = (*norm_)(trunk.x.x_TD, trunk.x.y_TD).normed;
  std::vector<std::int32_t> last;
  for (std::int64_t b = 0; b < batch; ++b) last.push_back(static_cast<std::int32_t>((b + 1) * seq - 1));
  const Kernels& k = kernels(device_);
  Tensor x_BD = Tensor::empty({batch, d_model_}, rows_, device_);
  k.gather_rows(x_BD, normed.value(), Tensor::of(std::span<const std::int32_t>(last), {batch}, device_));
  Tensor logits_BV = Tensor::empty({batch, head_.shape()[0]}, DType::f32, device_);
  k.weight_matmul(logits_BV, x_BD, head_.weight(rows_), Trans::yes);
  return logits_BV;
}

}  // namespace switchyard
