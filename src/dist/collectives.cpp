#include "dist/collectives.h"

#include <numeric>

namespace switchyard {
namespace {

Tensor exchange(const Tensor& x, const Exchange& rows, ProcessGroup& group) {
  const std::int64_t received = std::accumulate(rows.recv.begin(), rows.recv.end(), std::int64_t{});
  Tensor y = Tensor::empty(x.shape().with(0, received), x.dtype(), x.device());
  group.all_to_all(y, rows.recv, x, rows.send);
  return y;
}

}  // namespace

Variable all_to_all(const Variable& x, const Exchange& rows, ProcessGroup& group) {
  return record("all_to_all", exchange(x.value(), rows, group), {x},
                [rows, &group](const Tensor& dy) -> Grads { return {exchange(dy, rows.reversed(), group)}; });
}

}  // namespace switchyard
