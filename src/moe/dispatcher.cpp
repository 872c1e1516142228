#include "moe/dispatcher.h"

#include <algorithm>
#include <numeric>

#include "autograd/ops.h"

namespace switchyard {
namespace {

using Counts = std::vector<std::int32_t>;

Counts to_counts(const Tensor& x) {
  const Tensor host = to_device(x, Device{});
  return {host.data<std::int32_t>(), host.data<std::int32_t>() + host.numel()};
}

Tensor to_tensor(const Counts& values, Device device) {
  return Tensor::of(std::span<const std::int32_t>(values), {std::int64_t(values.size())}, device);
}

// Sums of each `width` neighbours.
std::vector<int> block_sums(const Counts& counts, std::size_t width) {
  std::vector<int> sums;
  for (auto it = counts.begin(); it != counts.end(); it += std::ptrdiff_t(width))
    sums.push_back(std::accumulate(it, it + std::ptrdiff_t(width), 0));
  return sums;
}

class AllToAllDispatcher final : public Dispatcher {
 public:
  AllToAllDispatcher(std::int64_t experts, ProcessGroup& group) : local_(experts / group.size()), group_(group) {
    SY_CHECK(experts % group.size() == 0, experts, " experts do not divide over ", group.size(), " ranks");
  }

  Dispatched dispatch(const Variable& x_TD, const Routing& routing) override {
    const Device device = x_TD.device();
    Dispatched d;

    // 1. my kept rows, grouped by expert; experts are numbered rank by rank, so this groups them by rank too
    const Counts mine_E = to_counts(routing.count_E);
    const std::int64_t kept = std::accumulate(mine_E.begin(), mine_E.end(), std::int64_t{0});
    Variable rows_ND = dispatch_rows(x_TD, routing.token_N.rows(0, kept), routing.slot_TK);

    // 2. every rank learns how many rows each of its experts gets from whom, [rank][local expert]
    const Counts theirs = exchange_counts(routing.count_E);
    d.exchange = {block_sums(mine_E, local_), block_sums(theirs, local_)};

    // 3. the rows travel
    d.rows_RD = all_to_all(rows_ND, d.exchange, group_);

    // 4. they came rank by rank, and the experts want them expert by expert
    Counts offsets(local_ + 1, 0);
    for (std::size_t i = 0; i < theirs.size(); ++i) offsets[i % local_ + 1] += theirs[i];
    std::partial_sum(offsets.begin(), offsets.end(), offsets.begin());
    d.offsets_e1 = to_tensor(offsets, device);

    Counts place;  // of each received row in expert order
    Counts next(offsets.begin(), offsets.end() - 1);
    for (std::size_t i = 0; i < theirs.size(); ++i)
      for (std::int32_t row = 0; row < theirs[i]; ++row) place.push_back(next[i % local_]++);
    if (!std::ranges::is_sorted(place)) {
      Counts source(place.size());
      for (std::size_t row = 0; row < place.size(); ++row) source[std::size_t(place[row])] = std::int32_t(row);
      d.to_expert_order_R = to_tensor(source, device);
      d.from_expert_order_R = to_tensor(place, device);
      d.rows_RD = permute_rows(d.rows_RD, d.to_expert_order_R, d.from_expert_order_R);
    }
    return d;
  }

  Variable combine(const Variable& y_RD, const Dispatched& d, const Routing& routing) override {
    Variable rows = y_RD;
    if (d.to_expert_order_R) rows = permute_rows(rows, d.from_expert_order_R, d.to_expert_order_R);
    return combine_rows(all_to_all(rows, d.exchange.reversed(), group_), routing.weight_TK, routing.slot_TK);
  }

 private:
  Counts exchange_counts(const Tensor& count_E) const {
    const std::vector<int> one(std::size_t(group_.size()), 1);
    const Tensor mine = count_E.view({group_.size(), std::int64_t(local_)});
    Tensor theirs = empty_like(mine);
    group_.all_to_all(theirs, one, mine, one);
    return to_counts(theirs);
  }

  std::size_t local_;
  ProcessGroup& group_;
};

}  // namespace

std::unique_ptr<Dispatcher> make_dispatcher(std::int64_t experts, ProcessGroup& group) {
  return std::make_unique<AllToAllDispatcher>(experts, group);
}

}  // namespace switchyard
