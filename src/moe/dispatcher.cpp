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

// Padded steps bring the same counts each time, and find the order of the step before.
class LastOrder {
 public:
  // received: [rank][local expert]
  const ExpertOrder& of(const Counts& received, std::size_t local, Device device) {
    if (order_.offsets_e1 && received == received_) return order_;
    received_ = received;
    order_ = {};

    Counts offsets(local + 1, 0);
    for (std::size_t i = 0; i < received.size(); ++i) offsets[i % local + 1] += received[i];
    std::partial_sum(offsets.begin(), offsets.end(), offsets.begin());
    order_.offsets_e1 = to_tensor(offsets, Device{});

    Counts place;  // of each received row in expert order
    Counts next(offsets.begin(), offsets.end() - 1);
    for (std::size_t i = 0; i < received.size(); ++i)
      for (std::int32_t row = 0; row < received[i]; ++row) place.push_back(next[i % local]++);
    if (!std::ranges::is_sorted(place)) {
      Counts source(place.size());
      for (std::size_t row = 0; row < place.size(); ++row) source[std::size_t(place[row])] = std::int32_t(row);
      order_.to_expert_R = to_tensor(source, device);
      order_.from_expert_R = to_tensor(place, device);
    }
    return order_;
  }

 private:
  Counts received_;  // what order_ was made for
  ExpertOrder order_;
};

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

  Dispatched dispatch(const Variable& x_TD, const Routing& routing, const Tensor& id_TK) override {
    // 1. how many rows go out, by expert, and how many each of my experts gets from whom
    const std::vector<PartCounts> counts = counts_of(routing);
    Counts sent;
    for (const PartCounts& part : counts) sent.insert(sent.end(), part.sent_E.begin(), part.sent_E.end());

    // 2. my rows, grouped by part and expert; experts are numbered rank by rank, so this groups them by rank too
    const std::int64_t rows = std::accumulate(sent.begin(), sent.end(), std::int64_t{0});
    Variable rows_ND = dispatch_rows(x_TD, routing.token_N.rows(0, rows), routing.slot_TK);
    Tensor copied_N, copies_NC;
    if (cut_ > 1) {
      std::tie(copied_N, copies_NC) = copies_of(block_sums(sent, local_), x_TD.device());
      rows_ND = dispatch_rows(rows_ND, copied_N, copies_NC);
    }

    // 3. the rows travel, to each rank that has a part of the expert
    std::vector<Exchange> parts;
    for (const PartCounts& part : counts)
      parts.push_back({block_sums(part.sent_E, local_, cut_), block_sums(part.received, local_)});
    std::vector<Tensor> ids(parts.size());
    if (id_TK) ids = exchange_ids(id_TK, routing.slot_TK, rows, copies_NC, parts);
    Outbound out(rows_ND, parts, group_);

    // 4. meanwhile: they will come rank by rank, and the experts want them expert by expert
    orders_.resize(std::max(orders_.size(), counts.size()));
    std::vector<ExpertOrder> orders;
    for (std::size_t part = 0; part < counts.size(); ++part)
      orders.push_back(orders_[part].of(counts[part].received, local_, x_TD.device()));
    return {.orders = std::move(orders),
            .rows_each = routing.rows_each * group_.size(),
            .ids = std::move(ids),
            .out = std::move(out),
            .home = Homebound(parts, group_),
            .copied_N = copied_N,
            .copies_NC = copies_NC};
  }

  Variable combine(Dispatched& sent, const Routing& routing) override {
    Variable rows_ND = sent.home.arrive();
    if (sent.copied_N) rows_ND = sum_slots(rows_ND, sent.copied_N, sent.copies_NC);
    return combine_rows(rows_ND, routing.weight_TK, routing.slot_TK);
  }

 private:
  // Of one part: how many rows this rank sends, by expert, and gets, [rank][local expert].
  struct PartCounts {
    Counts sent_E, received;
  };

  std::vector<PartCounts> counts_of(const Routing& routing) const {
    const auto parts = std::size_t(routing.count_PE.dim(0));
    if (routing.rows_each == 0) return exchange_counts(to_device(routing.count_PE, Device{}), parts);
    const auto each = std::int32_t(routing.rows_each);
    return std::vector(parts, PartCounts{Counts(experts_, each), Counts(experts_ * cut_, each)});
  }

  // All parts' counts in one exchange of host memory; the `cut` neighbours of a block are told alike.
  std::vector<PartCounts> exchange_counts(const Tensor& count_PE, std::size_t parts) const {
    const auto ranks = std::size_t(group_.size());
    const std::int32_t* const mine = count_PE.data<std::int32_t>();
    Counts told;
    for (std::size_t r = 0; r < ranks; ++r)
      for (std::size_t part = 0; part < parts; ++part) {
        const std::int32_t* const block = mine + part * experts_ + r / cut_ * local_;
        told.insert(told.end(), block, block + local_);
      }
    const std::vector<int> one(ranks, 1);
    const Tensor out = to_tensor(told, Device{}).view({group_.size(), std::int64_t(parts * local_)});
    Tensor in = empty_like(out);
    group_.all_to_all(in, one, out, one);

    std::vector<PartCounts> all(parts);
    const std::int32_t* theirs = in.data<std::int32_t>();
    for (std::size_t part = 0; part < parts; ++part)
      all[part].sent_E.assign(mine + part * experts_, mine + (part + 1) * experts_);
    for (std::size_t r = 0; r < ranks; ++r)
      for (PartCounts& part : all) {
        part.received.insert(part.received.end(), theirs, theirs + local_);
        theirs += local_;
      }
    return all;
  }

  // The names of `rows` rows and their copies go where the rows go.
  std::vector<Tensor> exchange_ids(const Tensor& id_TK, const Tensor& slot_TK, std::int64_t rows,
                                   const Tensor& copies_NC, const std::vector<Exchange>& parts) const {
    const Device device = id_TK.device();
    Tensor id_N = Tensor::empty({rows, 1}, DType::i32, device);
    kernels(device).scatter_ids(id_N, id_TK, slot_TK);
    if (copies_NC) {
      const Tensor one_each = id_N;
      id_N = Tensor::empty({copies_NC.numel(), 1}, DType::i32, device);
      kernels(device).scatter_ids(id_N, one_each, copies_NC);
    }
    std::vector<Tensor> ids;
    std::int64_t begin = 0;
    for (const auto& [send, recv] : parts) {
      const std::int64_t end = begin + std::accumulate(send.begin(), send.end(), std::int64_t{0});
      Tensor id_R = Tensor::empty({std::accumulate(recv.begin(), recv.end(), std::int64_t{0}), 1}, DType::i32, device);
      group_.all_to_all(id_R, recv, id_N.rows(begin, end), send);
      ids.push_back(id_R.view({id_R.dim(0)}));
      begin = end;
    }
    return ids;
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

  std::size_t experts_, cut_, local_;
  ProcessGroup& group_;
  std::vector<LastOrder> orders_;  // by part
};

}  // namespace

ExpertRows Dispatched::arrive(std::size_t part) {
  const ExpertOrder& order = orders[part];
  Variable rows_RD = out.arrive(part);
  if (order.to_expert_R) rows_RD = permute_rows(rows_RD, order.to_expert_R, order.from_expert_R);
  return {rows_RD, order.offsets_e1, rows_each, ids[part], order.to_expert_R};
}

void Dispatched::leave(std::size_t part, const Variable& y_RD) {
  const ExpertOrder& order = orders[part];
  home.leave(part, order.to_expert_R ? permute_rows(y_RD, order.from_expert_R, order.to_expert_R) : y_RD);
}

std::unique_ptr<Dispatcher> make_dispatcher(std::int64_t experts, ProcessGroup& group, int cut) {
  return std::make_unique<AllToAllDispatcher>(experts, group, cut);
}

}  // namespace switchyard
