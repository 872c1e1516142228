#include "moe/moe.h"

#include <numeric>
#include <vector>

namespace switchyard {

Moe::Moe(const MoeConfig& config, std::int64_t d_model, const std::string& name, Init in, Init out, Mesh& mesh,
         ParameterMaker& make)
    : overlap_(config.overlap),
      group_size_(config.router.group_size),
      expert_dropout_(config.expert_dropout),
      name_(name),
      seed_(make.seed()),
      group_(*mesh.experts),
      router_(config, d_model, name, mesh, make),
      dispatcher_(make_dispatcher(config.experts, *mesh.experts, mesh.layout.expert.extent(Axis::etp))),
      experts_(config.experts, d_model, config.d_ff, config.activation.value(), name, in, out, mesh, make) {
  if (config.shared_experts > 0)
    shared_.emplace(d_model, config.shared_experts * config.d_ff, *config.activation, name + ".shared_experts", in, out,
                    mesh, make);
}

// The same on every rank, as all bring equally many tokens where capacity is enforced.
std::int64_t Moe::parts(const Variable& x_TD, const RouterPass& pass) const {
  const bool is_wanted = overlap_ == Overlap::on ||
                         (overlap_ == Overlap::automatic && group_.size() > 1 && group_.overlaps(x_TD.device()));
  return is_wanted && pass.trains() && x_TD.shape()[0] % (2 * group_size_) == 0 ? 2 : 1;
}

// Each choice by its place in the global batch: the same whichever rank has the token.
Tensor Moe::choice_ids(const Routing& routing, const RouterPass& pass) const {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(routing.slot_TK.numel()));
  std::iota(ids.begin(), ids.end(), static_cast<std::int32_t>(pass.first_token * routing.slot_TK.dim(1)));
  return Tensor::of(std::span<const std::int32_t>(ids), routing.slot_TK.shape(), routing.slot_TK.device());
}

MoeResult Moe::operator()(const Variable& x_TD, const RouterPass& pass) const {
  const Routing routing = router_(x_TD, pass, parts(x_TD, pass));
  const float rate = pass.trains() ? static_cast<float>(expert_dropout_) : 0;
  Dispatched sent = dispatcher_->dispatch(x_TD, routing, rate > 0 ? choice_ids(routing, pass) : Tensor());
  for (std::size_t part = 0; part < sent.parts(); ++part) {
    const ExpertRows rows = sent.arrive(part);
    const Experts::Dropout dropout{rows.id_R, rows.order_R, pass.key(seed_, name_, "expert dropout"), rate};
    sent.leave(part, experts_(rows.rows_RD, rows.offsets_e1, rows.rows_each, dropout));
  }
  const Variable y_TD = dispatcher_->combine(sent, routing);
  return {shared_ ? add(y_TD, (*shared_)(x_TD)) : y_TD, routing.loss_1, routing.stats};
}

}  // namespace switchyard
