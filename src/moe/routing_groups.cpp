#include "moe/routing_groups.h"

#include <algorithm>
#include <numeric>
#include <span>

#include "tensor/kernels.h"

namespace switchyard {

RoutingGroups::RoutingGroups(std::int64_t size, std::int64_t tokens, ProcessGroup& tensor)
    : size_(size), tokens_(tokens), tensor_(tensor) {
  SY_CHECK(tokens * tensor.size() % size == 0, "router: ", tokens, " tokens on each of ", tensor.size(),
           " ranks are no multiple of a routing group of ", size);
}

std::int64_t RoutingGroups::number() const {
  return std::max<std::int64_t>(1, (spread_over() ? tokens_ * tensor_.size() : tokens_) / size_);
}

Tensor RoutingGroups::all(const Tensor& x_TK) const {
  if (!spread_over()) return x_TK;
  Tensor x_AK = Tensor::empty(x_TK.shape().with(0, tokens_ * tensor_.size()), x_TK.dtype(), x_TK.device());
  tensor_.all_gather(x_AK, x_TK);
  return x_AK;
}

Tensor RoutingGroups::own(const Tensor& x_AK) const { return x_AK.rows(first(), first() + tokens_); }

std::vector<std::int32_t> RoutingGroups::of_own_tokens() const {
  std::vector<std::int32_t> group_of;
  for (std::int64_t t = first(); t < first() + tokens_; ++t) group_of.push_back(static_cast<std::int32_t>(t / size_));
  return group_of;
}

Tensor RoutingGroups::of_own_parts(const Tensor& x_GE) const {
  if (!spread_over()) return x_GE;
  std::vector<std::int32_t> group_of;
  for (std::int64_t t = first(); t < first() + tokens_; t += std::gcd(size_, tokens_))
    group_of.push_back(static_cast<std::int32_t>(t / size_));
  const auto parts = std::ssize(group_of);
  Tensor mine = Tensor::empty(x_GE.shape().with(0, parts), DType::f32, x_GE.device());
  kernels(x_GE.device())
      .gather_rows(mine, x_GE, Tensor::of(std::span<const std::int32_t>(group_of), {parts}, x_GE.device()));
  return mine;
}

}  // namespace switchyard
