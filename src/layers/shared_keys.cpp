#include "layers/shared_keys.h"

#include "tensor/kernels.h"

namespace switchyard {
namespace {

// Rows are seen in units as wide as a rank's keys, so that moving columns is gathering units. All counts are in units.
struct Units {
  std::int64_t tokens, queries, sharers, width;

  std::int64_t in() const { return queries + 2; }             // of a row that comes
  std::int64_t out() const { return queries + 2 * sharers; }  // of a row that goes
};

// index[i] = at(t, j) for row t of `columns` units
template <class At>
Tensor indices(std::int64_t tokens, std::int64_t columns, Device device, At at) {
  std::vector<std::int32_t> index;
  index.reserve(static_cast<std::size_t>(tokens * columns));
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t j = 0; j < columns; ++j) index.push_back(static_cast<std::int32_t>(at(t, j)));
  return Tensor::of(std::span<const std::int32_t>(index), {tokens * columns}, device);
}

Tensor gather(const Tensor& units, const Tensor& index) {
  Tensor y = Tensor::empty({index.dim(0), units.dim(1)}, units.dtype(), units.device());
  kernels(units.device()).gather_rows(y, units, index);
  return y;
}

// One tensor's units behind the other's.
Tensor joined(const Tensor& a, const Tensor& b) {
  Tensor both = Tensor::empty(a.shape().with(0, a.dim(0) + b.dim(0)), a.dtype(), a.device());
  Tensor first = both.rows(0, a.dim(0)), second = both.rows(a.dim(0), both.dim(0));
  kernels(a.device()).copy(first, a);
  kernels(a.device()).copy(second, b);
  return both;
}

// Everyone's keys and values come as (sharer, token, key or value).
Tensor with_keys_of_all(const Tensor& qkv, const Units& u, ProcessGroup& sharers) {
  const Tensor mine = qkv.view({u.tokens * u.in(), u.width});
  const Tensor keys =
      gather(mine, indices(u.tokens, 2, qkv.device(), [&](auto t, auto j) { return t * u.in() + u.queries + j; }));
  Tensor all = Tensor::empty({u.sharers * keys.dim(0), u.width}, keys.dtype(), keys.device());
  sharers.all_gather(all, keys);
  const std::int64_t behind = mine.dim(0);
  return gather(joined(mine, all), indices(u.tokens, u.out(), qkv.device(),
                                           [&](auto t, auto j) {
                                             if (j < u.queries) return t * u.in() + j;
                                             const std::int64_t value = (j - u.queries) / u.sharers,
                                                                s = (j - u.queries) % u.sharers;
                                             return behind + (s * u.tokens + t) * 2 + value;
                                           }))
      .view({u.tokens, u.out() * u.width});
}

// The transpose: the gradients of my keys and values are summed over the ranks that used them.
Tensor summed_keys(const Tensor& dy, const Units& u, ProcessGroup& sharers) {
  const Tensor all = dy.view({u.tokens * u.out(), u.width});
  const Tensor for_each = gather(all, indices(u.sharers * u.tokens, 2, dy.device(), [&](auto row, auto value) {
                                   const std::int64_t s = row / u.tokens, t = row % u.tokens;
                                   return t * u.out() + u.queries + value * u.sharers + s;
                                 }));
  Tensor keys = Tensor::empty({u.tokens * 2, u.width}, dy.dtype(), dy.device());
  sharers.reduce_scatter(keys, for_each);
  const std::int64_t behind = all.dim(0);
  return gather(joined(all, keys), indices(u.tokens, u.in(), dy.device(),
                                           [&](auto t, auto j) {
                                             return j < u.queries ? t * u.out() + j : behind + t * 2 + j - u.queries;
                                           }))
      .view({u.tokens, u.in() * u.width});
}

}  // namespace

std::unique_ptr<ProcessGroup> make_key_sharers(std::int64_t n_kv_heads, ProcessGroup& tensor) {
  const int ranks = tensor.size();
  SY_CHECK(n_kv_heads % ranks == 0 || ranks % n_kv_heads == 0, n_kv_heads, " key heads for ", ranks, " ranks");
  const int sharers = n_kv_heads < ranks ? ranks / static_cast<int>(n_kv_heads) : 1;
  return tensor.split(tensor.rank() / sharers);
}

Variable SharedKeys::operator()(const Variable& qkv) const {
  if (sharers_.size() == 1) return qkv;
  SY_CHECK(mine_.queries % mine_.keys == 0, "shared keys: ", mine_.queries, " columns of queries in units of ",
           mine_.keys);
  const Units u{
      .tokens = qkv.shape()[0], .queries = mine_.queries / mine_.keys, .sharers = sharers_.size(), .width = mine_.keys};
  return record("shared_keys", with_keys_of_all(qkv.value(), u, sharers_), {qkv},
                [u, &sharers = sharers_](const Tensor& dy) -> Grads { return {summed_keys(dy, u, sharers)}; });
}

}  // namespace switchyard
