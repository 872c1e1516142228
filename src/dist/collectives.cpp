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

Tensor gathered(const Tensor& x, ProcessGroup& group) {
  Tensor y = Tensor::empty(x.shape().with(0, x.dim(0) * group.size()), x.dtype(), x.device());
  group.all_gather(y, x);
  return y;
}

Tensor summed(const Tensor& x, ProcessGroup& group) {
  SY_CHECK(x.dim(0) % group.size() == 0, "sum_rows: ", x.dim(0), " rows do not divide over ", group.size(), " ranks");
  Tensor y = Tensor::empty(x.shape().with(0, x.dim(0) / group.size()), x.dtype(), x.device());
  group.reduce_scatter(y, x);
  return y;
}

}  // namespace

Variable gather_rows(const Variable& x, ProcessGroup& group) {
  if (group.size() == 1) return x;
  return record("gather_rows", gathered(x.value(), group), {x},
                [&group](const Tensor& dy) -> Grads { return {summed(dy, group)}; });
}

Variable sum_rows(const Variable& x, ProcessGroup& group) {
  if (group.size() == 1) return x;
  return record("sum_rows", summed(x.value(), group), {x},
                [&group](const Tensor& dy) -> Grads { return {gathered(dy, group)}; });
}

Variable all_to_all(const Variable& x, const Exchange& rows, ProcessGroup& group) {
  return record("all_to_all", exchange(x.value(), rows, group), {x},
                [rows, &group](const Tensor& dy) -> Grads { return {exchange(dy, rows.reversed(), group)}; });
}

}  // namespace switchyard
