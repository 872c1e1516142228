#include "dist/collectives.h"

namespace switchyard {
namespace {

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

}  // namespace switchyard
