#include "moe/moe.h"

namespace switchyard {

Moe::Moe(const MoeConfig& config, std::int64_t d_model, Activation activation, const std::string& name, Init in,
         Init out, Mesh& mesh, ParameterMaker& make)
    : router_(config, d_model, name, mesh, make),
      dispatcher_(make_dispatcher(config.experts, *mesh.experts, mesh.layout.expert.extent(Axis::etp))),
      experts_(config.experts, d_model, config.d_ff, activation, name, in, out, mesh, make) {}

MoeResult Moe::operator()(const Variable& x_TD, Capacity capacity, float share) const {
  const Routing routing = router_(x_TD, capacity, share);
  const Dispatched rows = dispatcher_->dispatch(x_TD, routing);
  const Variable y_RD = experts_(rows.rows_RD, rows.order.offsets_e1, rows.rows_each);
  return {dispatcher_->combine(y_RD, rows, routing), routing.loss_1, routing.stats};
}

}  // namespace switchyard
