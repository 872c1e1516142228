#include "dist/checked_group.h"

#include <cstdlib>

#include "autograd/scope.h"
#include "dist/consistency.h"

namespace switchyard {
namespace {

class CheckedGroup final : public ProcessGroup {
 public:
  // `numbers`: what the ranks are called, by rank.
  CheckedGroup(std::unique_ptr<ProcessGroup> group, std::vector<int> numbers)
      : group_(std::move(group)), numbers_(std::move(numbers)) {}

  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  bool carries(Device device) const override { return group_->carries(device); }
  bool overlaps(Device device) const override { return group_->overlaps(device); }
  void set_timeout(double seconds) override { group_->set_timeout(seconds); }
  void barrier() override {
    compare({Collective::barrier});
    group_->barrier();
  }
  [[noreturn]] void abort(int exit_code) override {
    group_->abort(exit_code);
    std::abort();  // never reached, which the compiler cannot see through a virtual call
  }

 private:
  void do_all_reduce(Tensor& x, Reduce op) override {
    compare(Call::all_reduce(x, op));
    group_->all_reduce(x, op);
  }
  Wait do_start_all_reduce(Tensor& x, Reduce op) override {
    compare(Call::all_reduce(x, op));
    return group_->start_all_reduce(x, op);
  }
  void do_broadcast(Tensor& x, int root) override {
    compare(Call::broadcast(x, root));
    group_->broadcast(x, root);
  }
  void do_all_gather(Tensor& out, const Tensor& in) override {
    compare(Call::all_gather(in));
    group_->all_gather(out, in);
  }
  Wait do_start_all_gather(Tensor& out, const Tensor& in) override {
    compare(Call::all_gather(in));
    return group_->start_all_gather(out, in);
  }
  void do_reduce_scatter(Tensor& out, const Tensor& in) override {
    compare(Call::reduce_scatter(in));
    group_->reduce_scatter(out, in);
  }
  Wait do_start_reduce_scatter(Tensor& out, const Tensor& in) override {
    compare(Call::reduce_scatter(in));
    return group_->start_reduce_scatter(out, in);
  }
  void do_all_to_all(Tensor& out, std::span<const int> recv, const Tensor& in, std::span<const int> send) override {
    compare(Call::all_to_all(in));
    compare_rows(send, recv);
    group_->all_to_all(out, recv, in, send);
  }
  Wait do_start_all_to_all(Tensor& out, std::span<const int> recv, const Tensor& in,
                           std::span<const int> send) override {
    compare(Call::all_to_all(in));
    compare_rows(send, recv);
    return group_->start_all_to_all(out, recv, in, send);
  }
  std::unique_ptr<ProcessGroup> do_split(int colour) override {
    compare({Collective::split});
    auto part = group_->split(colour);
    const std::int32_t number = numbers_[static_cast<std::size_t>(rank())];
    Tensor all = Tensor::empty({part->size()}, DType::i32, Device{});
    part->all_gather(all, Tensor::of<std::int32_t>({&number, 1}, {1}, Device{}));
    std::vector<int> numbers(all.data<std::int32_t>(), all.data<std::int32_t>() + part->size());
    return std::make_unique<CheckedGroup>(std::move(part), std::move(numbers));
  }

  void compare(const Call& call) {
    require_agreement({{"collective", text(call)}, {"in", Scope::current()}}, *group_, numbers_);
  }

  // What each sends to each must be what that one expects.
  void compare_rows(std::span<const int> send, std::span<const int> recv) {
    const std::int64_t n = size();
    std::vector<std::int32_t> counts(send.begin(), send.end());
    counts.insert(counts.end(), recv.begin(), recv.end());
    Tensor all = Tensor::empty({n, 2 * n}, DType::i32, Device{});
    group_->all_gather(all, Tensor::of(std::span<const std::int32_t>(counts), {1, 2 * n}, Device{}));
    const std::int32_t* of_rank = all.data<std::int32_t>();
    for (std::int64_t from = 0; from < n; ++from)
      for (std::int64_t to = 0; to < n; ++to) {
        const std::int32_t sent = of_rank[from * 2 * n + to], expected = of_rank[to * 2 * n + n + from];
        SY_REQUIRE(sent == expected, Fault::communication, "all_to_all in ", Scope::current(), ": rank ",
                   numbers_[static_cast<std::size_t>(from)], " sends ", sent, " rows to rank ",
                   numbers_[static_cast<std::size_t>(to)], ", which expects ", expected);
      }
  }

  std::unique_ptr<ProcessGroup> group_;
  std::vector<int> numbers_;
};

}  // namespace

std::unique_ptr<ProcessGroup> make_checked_group(std::unique_ptr<ProcessGroup> group) {
  std::vector<int> numbers;
  for (int r = 0; r < group->size(); ++r) numbers.push_back(r);
  return std::make_unique<CheckedGroup>(std::move(group), std::move(numbers));
}

}  // namespace switchyard
