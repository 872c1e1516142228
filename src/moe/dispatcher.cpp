#include "moe/dispatcher.h"

#include <algorithm>
#include <numeric>

#include "autograd/ops.h"

namespace switchyard {
namespace {

using Counts = std::vector<std::int32_t>;

Tensor to_tensor(const Counts& values, Device device) {
  return Tensor::of(std::span<const std::int32_t>(values), {std::int64_t(values.size())}, device);
}

// Sums of each `width` neighbours.
std::vector<int> block_sums(std::span<const std::int32_t> counts, std::size_t width) {
  std::vector<int> sums;
  for (std::size_t i = 0; i < counts.size(); i += width) {
    const auto block = counts.subspan(i, width);
    sums.push_back(std::accumulate(block.begin(), block.end(), 0));
  }
  return sums;
}

class AllToAllDispatcher final : public Dispatcher {
 public:
  AllToAllDispatcher(std::int64_t experts, ProcessGroup& group)
      : experts_(std::size_t(experts)), local_(experts_ / std::size_t(group.size())), group_(group) {
    SY_CHECK(experts % group.size() == 0, experts, " experts do not divide over ", group.size(), " ranks");
  }

  Dispatched dispatch(const Variable& x_TD, const Routing& routing) override {
    // 1. how many rows each of my experts gets from whom, [rank][local expert], and how many go out, by expert
    const Tensor counts = routing.rows_each > 0 ? Tensor{} : exchange_counts(routing.count_E);
    const Counts padded(routing.rows_each > 0 ? experts_ : 0, std::int32_t(routing.rows_each));
    const auto [mine_E, theirs] = counts ? halves(counts) : std::pair(std::span(padded), std::span(padded));

    // 2. my rows, grouped by expert; experts are numbered rank by rank, so this groups them by rank too
    const std::int64_t rows = std::accumulate(mine_E.begin(), mine_E.end(), std::int64_t{0});
    const Variable rows_ND = dispatch_rows(x_TD, routing.token_N.rows(0, rows), routing.slot_TK);

    // 3. the rows travel
    Dispatched d;
    d.rows_each = routing.rows_each * group_.size();
    d.exchange = {block_sums(mine_E, local_), block_sums(theirs, local_)};
    d.rows_RD = all_to_all(rows_ND, d.exchange, group_);

    // 4. they came rank by rank, and the experts want them expert by expert
    d.order = order_of(theirs, x_TD.device());
    if (d.order.to_expert_R) d.rows_RD = permute_rows(d.rows_RD, d.order.to_expert_R, d.order.from_expert_R);
    return d;
  }

  Variable combine(const Variable& y_RD, const Dispatched& d, const Routing& routing) override {
    Variable rows = y_RD;
    if (d.order.to_expert_R) rows = permute_rows(rows, d.order.from_expert_R, d.order.to_expert_R);
    return combine_rows(all_to_all(rows, d.exchange.reversed(), group_), routing.weight_TK, routing.slot_TK);
  }

 private:
  // On the host, in one read: the counts that this rank sends, by expert, and those that it gets, by rank.
  Tensor exchange_counts(const Tensor& count_E) const {
    const std::vector<int> one(std::size_t(group_.size()), 1);
    const Shape by_rank{group_.size(), std::int64_t(local_)};
    Tensor both = Tensor::empty({2, std::int64_t(experts_)}, DType::i32, count_E.device());
    Tensor mine = both.rows(0, 1).view(by_rank), theirs = both.rows(1, 2).view(by_rank);
    kernels(count_E.device()).copy(mine, count_E);
    group_.all_to_all(theirs, one, mine, one);
    return to_device(both, Device{});
  }

  std::pair<std::span<const std::int32_t>, std::span<const std::int32_t>> halves(const Tensor& counts) const {
    const std::int32_t* begin = counts.data<std::int32_t>();
    return {{begin, experts_}, {begin + experts_, experts_}};
  }

  // Padded steps bring the same counts each time, and find the order of the step before.
  const ExpertOrder& order_of(std::span<const std::int32_t> theirs, Device device) {
    if (order_.offsets_e1 && std::ranges::equal(theirs, ordered_)) return order_;
    ordered_.assign(theirs.begin(), theirs.end());
    order_ = {};

    Counts offsets(local_ + 1, 0);
    for (std::size_t i = 0; i < theirs.size(); ++i) offsets[i % local_ + 1] += theirs[i];
    std::partial_sum(offsets.begin(), offsets.end(), offsets.begin());
    order_.offsets_e1 = to_tensor(offsets, Device{});

    Counts place;  // of each received row in expert order
    Counts next(offsets.begin(), offsets.end() - 1);
    for (std::size_t i = 0; i < theirs.size(); ++i)
      for (std::int32_t row = 0; row < theirs[i]; ++row) place.push_back(next[i % local_]++);
    if (!std::ranges::is_sorted(place)) {
      Counts source(place.size());
      for (std::size_t row = 0; row < place.size(); ++row) source[std::size_t(place[row])] = std::int32_t(row);
      order_.to_expert_R = to_tensor(source, device);
      order_.from_expert_R = to_tensor(place, device);
    }
    return order_;
  }

  std::size_t experts_, local_;
  ProcessGroup& group_;
  Counts ordered_;  // the counts that order_ was made for
  ExpertOrder order_;
};

}  // namespace

std::unique_ptr<Dispatcher> make_dispatcher(std::int64_t experts, ProcessGroup& group) {
  return std::make_unique<AllToAllDispatcher>(experts, group);
}

}  // namespace switchyard
