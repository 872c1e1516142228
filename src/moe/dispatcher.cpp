#include "moe/dispatcher.h"

#include <algorithm>
#include <numeric>
#include <span>
#include <tuple>
#include <utility>

#include "autograd/ops.h"

namespace switchyard {
namespace {

using Counts = std::vector<std::int32_t>;

Tensor to_tensor(const Counts& values, Device device) {
  return Tensor::of(std::span<const std::int32_t>(values), {std::int64_t(values.size())}, device);
}

// Sums of each `width` neighbours, `times` over.
std::vector<int> block_sums(std::span<const std::int32_t> counts, std::size_t width, std::size_t times = 1) {
  std::vector<int> sums;
  for (std::size_t i = 0; i < counts.size(); i += width) {
    const auto block = counts.subspan(i, width);
    sums.insert(sums.end(), times, std::accumulate(block.begin(), block.end(), 0));
  }
  return sums;
}

class AllToAllDispatcher final : public Dispatcher {
 public:
  AllToAllDispatcher(std::int64_t experts, ProcessGroup& group, int cut)
      : experts_(std::size_t(experts)),
        cut_(std::size_t(cut)),
        local_(experts_ * cut_ / std::size_t(group.size())),
        group_(group) {
    SY_CHECK(group.size() % cut == 0 && experts % (group.size() / cut) == 0, experts, " experts cut over ", cut,
             " ranks do not divide over ", group.size());
  }

  Dispatched dispatch(const Variable& x_TD, const Routing& routing) override {
    // 1. how many rows each of my experts gets from whom, [rank][local expert], and how many go out, by expert
    const Tensor counts = routing.rows_each > 0 ? Tensor{} : exchange_counts(routing.count_E);
    const Counts padded(routing.rows_each > 0 ? experts_ * cut_ : 0, std::int32_t(routing.rows_each));
    const std::span<const std::int32_t> all =
        counts ? std::span(counts.data<std::int32_t>(), experts_ * (1 + cut_)) : std::span(padded);
    const auto mine_E = all.first(experts_), theirs = all.last(experts_ * cut_);

    // 2. my rows, grouped by expert; experts are numbered rank by rank, so this groups them by rank too
    const std::int64_t rows = std::accumulate(mine_E.begin(), mine_E.end(), std::int64_t{0});
    Variable rows_ND = dispatch_rows(x_TD, routing.token_N.rows(0, rows), routing.slot_TK);

    // 3. the rows travel, to each rank that has a part of the expert
    Dispatched d;
    d.rows_each = routing.rows_each * group_.size();
    d.exchange = {block_sums(mine_E, local_, cut_), block_sums(theirs, local_)};
    if (cut_ > 1) {
      std::tie(d.copied_N, d.copies_NC) = copies_of(block_sums(mine_E, local_), x_TD.device());
      rows_ND = dispatch_rows(rows_ND, d.copied_N, d.copies_NC);
    }
    d.rows_RD = all_to_all(rows_ND, d.exchange, group_);

    // 4. they came rank by rank, and the experts want them expert by expert
    d.order = order_of(theirs, x_TD.device());
    if (d.order.to_expert_R) d.rows_RD = permute_rows(d.rows_RD, d.order.to_expert_R, d.order.from_expert_R);
    return d;
  }

  Variable combine(const Variable& y_RD, const Dispatched& d, const Routing& routing) override {
    Variable rows = y_RD;
    if (d.order.to_expert_R) rows = permute_rows(rows, d.order.from_expert_R, d.order.to_expert_R);
    rows = all_to_all(rows, d.exchange.reversed(), group_);
    if (d.copied_N) rows = sum_slots(rows, d.copied_N, d.copies_NC);
    return combine_rows(rows, routing.weight_TK, routing.slot_TK);
  }

 private:
  // On the host, in one read: the counts that this rank sends, by expert, and behind them those that it gets, by rank.
  Tensor exchange_counts(const Tensor& count_E) const {
    const std::vector<int> one(std::size_t(group_.size()), 1);
    const Shape by_rank{group_.size(), std::int64_t(local_)};
    Tensor all = Tensor::empty({count_E.numel() + by_rank.numel()}, DType::i32, count_E.device());
    Tensor mine = all.rows(0, count_E.numel()), theirs = all.rows(count_E.numel(), all.numel()).view(by_rank);
    kernels(count_E.device()).copy(mine, count_E);
    group_.all_to_all(theirs, one, cut_ > 1 ? for_each_rank(mine, by_rank) : mine.view(by_rank), one);
    return to_device(all, Device{});
  }

  // The counts of each rank's experts, which `cut` neighbours have alike.
  Tensor for_each_rank(const Tensor& count_E, Shape by_rank) const {
    Tensor counts = Tensor::empty(by_rank, DType::i32, count_E.device());
    const std::int64_t cut(cut_), local(local_);
    for (std::int64_t r = 0; r < by_rank[0]; ++r) {
      Tensor row = counts.rows(r, r + 1);
      kernels(count_E.device()).copy(row, count_E.rows(r / cut * local, (r / cut + 1) * local));
    }
    return counts;
  }

  // For rows that go block by block to `cut` ranks each: which row each copy is of (N), and the copies of each (N, C).
  std::pair<Tensor, Tensor> copies_of(const std::vector<int>& rows_of_block, Device device) const {
    Counts copied, copies;
    std::int32_t row = 0;
    for (const int rows : rows_of_block) {
      const auto first = std::int32_t(copied.size());
      for (std::size_t c = 0; c < cut_; ++c)
        for (std::int32_t i = 0; i < rows; ++i) copied.push_back(row + i);
      for (std::int32_t i = 0; i < rows; ++i)
        for (std::size_t c = 0; c < cut_; ++c) copies.push_back(first + std::int32_t(c) * rows + i);
      row += rows;
    }
    return {to_tensor(copied, device), to_tensor(copies, device).view({row, std::int64_t(cut_)})};
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

  std::size_t experts_, cut_, local_;
  ProcessGroup& group_;
  Counts ordered_;  // the counts that order_ was made for
  ExpertOrder order_;
};

}  // namespace

std::unique_ptr<Dispatcher> make_dispatcher(std::int64_t experts, ProcessGroup& group, int cut) {
  return std::make_unique<AllToAllDispatcher>(experts, group, cut);
}

}  // namespace switchyard
