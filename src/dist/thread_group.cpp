#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <list>
#include <mutex>
#include <numeric>
#include <thread>

#include "dist/ordered_reduce.h"
#include "dist/process_group.h"

namespace switchyard {
namespace {

struct Hub;

// What a rank shows the others of its group when it enters a collective.
struct Offer {
  Call call;
  const Tensor* in = nullptr;
  std::span<const int> send = {}, recv = {};
  int colour = 0;
  Hub* part = nullptr;  // of split
};

// What the ranks of one group share.
struct Hub {
  explicit Hub(std::vector<int> ranks) : members(std::move(ranks)), offers(members.size()) {}

  const std::vector<int> members;  // numbers in the run, by rank in this group
  std::vector<Offer> offers;       // by rank
  int arrived = 0;
  std::int64_t meetings = 0;
  std::string misfit;  // what was wrong with the offers of the last meeting
};

// Why these offers do not make one collective; empty where they do.
std::string find_misfit(const std::vector<Offer>& offers) {
  for (std::size_t r = 1; r < offers.size(); ++r)
    if (offers[r].call != offers[0].call)
      return text("rank 0 calls ", offers[0].call, ", rank ", r, " calls ", offers[r].call);
  if (offers[0].send.empty()) return {};
  for (std::size_t to = 0; to < offers.size(); ++to)
    for (std::size_t from = 0; from < offers.size(); ++from)
      if (offers[from].send[to] != offers[to].recv[from])
        return text("all_to_all: rank ", from, " sends ", offers[from].send[to], " rows to rank ", to,
                    ", which expects ", offers[to].recv[from]);
  return {};
}

// All ranks of one run_ranks call and every group among them. One lock serves all, so that a failure wakes everybody
// and a wait that cannot end is seen at once.
class Run {
 public:
  explicit Run(int size) : doing_(static_cast<std::size_t>(size), "is running"), present_(size) {}

  Hub& make_hub(std::vector<int> members) {
    const std::scoped_lock lock(mutex_);
    return hubs_.emplace_back(std::move(members));
  }

  // Shows what the rank offers and waits until all of the hub have come. Throws when the offers do not fit together (on
  // every rank the same), when the run has failed, and when nobody is left who could still come.
  void meet(Hub& hub, int rank, Offer offer) {
    const Call call = offer.call;
    const auto me = static_cast<std::size_t>(hub.members[static_cast<std::size_t>(rank)]);
    std::unique_lock lock(mutex_);
    SY_REQUIRE(!failure_, Fault::communication, "rank ", me, " stops before ", call, " because another rank failed");
    hub.offers[static_cast<std::size_t>(rank)] = std::move(offer);
    if (arrive(hub)) {
      hub.misfit = find_misfit(hub.offers);
    } else {
      const std::int64_t meeting = hub.meetings;
      doing_[me] = text("waits in ", call);
      ++waiting_;
      fail_if_stuck();
      changed_.wait(lock, [&] { return hub.meetings != meeting || failure_; });
      doing_[me] = "is running";
      // Once all have met, a failure elsewhere waits: the others may be reading this rank's tensor by now.
      SY_REQUIRE(hub.meetings != meeting, Fault::communication, "rank ", me, " stops in ", call,
                 " because another rank failed");
    }
    SY_REQUIRE(hub.misfit.empty(), Fault::communication, hub.misfit);
  }

  // The same between the steps of a collective that all have entered: each is sure to come, and none may leave while
  // another reads its tensors, whatever happens elsewhere.
  void meet_again(Hub& hub) {
    std::unique_lock lock(mutex_);
    if (arrive(hub)) return;
    ++waiting_;
    const std::int64_t meeting = hub.meetings;
    changed_.wait(lock, [&] { return hub.meetings != meeting; });
  }

  // This rank makes no more calls. `failure` says why, where it did not simply end; the first one counts.
  void leave(int rank, std::exception_ptr failure) {
    const std::scoped_lock lock(mutex_);
    doing_[static_cast<std::size_t>(rank)] = "has ended";
    --present_;
    if (failure && !failure_) failure_ = failure;
    fail_if_stuck();
    changed_.notify_all();
  }

  std::exception_ptr failure() const { return failure_; }

 private:
  bool arrive(Hub& hub) {
    if (++hub.arrived < std::ssize(hub.members)) return false;
    waiting_ -= hub.arrived - 1;
    hub.arrived = 0;
    ++hub.meetings;
    changed_.notify_all();
    return true;
  }

  void fail_if_stuck() {
    if (failure_ || present_ == 0 || waiting_ < present_) return;
    std::string what = "every rank waits for one that will not come:";
    for (std::size_t r = 0; r < doing_.size(); ++r) what += text(r ? ", rank " : " rank ", r, ' ', doing_[r]);
    failure_ = std::make_exception_ptr(Error(what, Fault::communication));
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::list<Hub> hubs_;
  std::vector<std::string> doing_;
  int present_, waiting_ = 0;
  std::exception_ptr failure_;
};

std::int64_t bytes_of(const Tensor& x) { return static_cast<std::int64_t>(x.size_in_bytes()); }

void copy(Tensor& out, std::int64_t to, const Tensor& in, std::int64_t from, std::int64_t bytes) {
  std::memcpy(out.bytes() + to, in.bytes() + from, static_cast<std::size_t>(bytes));
}

class ThreadGroup final : public ProcessGroup {
 public:
  ThreadGroup(Run& run, Hub& hub, int rank) : run_(run), hub_(hub), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(hub_.members.size()); }
  void barrier() override { enter({.call = {Collective::barrier}}); }
  [[noreturn]] void abort(int exit_code) override {
    std::fflush(nullptr);
    std::_Exit(exit_code);
  }

 private:
  // First every rank reduces its share of everyone's tensor, in its own, where nobody else looks meanwhile; then it
  // fetches the other shares from the ranks that reduced them.
  void do_all_reduce(Tensor& x, Reduce op) override {
    enter({.call = Call::all_reduce(x, op), .in = &x});
    const auto width = static_cast<std::int64_t>(size_of(x.dtype()));
    const Share mine = share_of(x.numel(), rank_, size());
    std::vector<const std::byte*> parts;
    for (int r = 0; r < size(); ++r) parts.push_back(offer(r).in->bytes() + mine.begin * width);
    reduce_in_order(x.bytes() + mine.begin * width, parts, mine.count(), x.dtype(), op);
    proceed();
    for (int r = 0; r < size(); ++r) {
      const Share share = share_of(x.numel(), r, size());
      if (r != rank_) copy(x, share.begin * width, *offer(r).in, share.begin * width, share.count() * width);
    }
    proceed();
  }

  void do_broadcast(Tensor& x, int root) override {
    enter({.call = Call::broadcast(x, root), .in = &x});
    if (rank_ != root) copy(x, 0, *offer(root).in, 0, bytes_of(x));
    proceed();
  }

  void do_all_gather(Tensor& out, const Tensor& in) override {
    enter({.call = Call::all_gather(in), .in = &in});
    for (int r = 0; r < size(); ++r) copy(out, r * bytes_of(in), *offer(r).in, 0, bytes_of(in));
    proceed();
  }

  void do_reduce_scatter(Tensor& out, const Tensor& in) override {
    enter({.call = Call::reduce_scatter(in), .in = &in});
    std::vector<const std::byte*> parts;
    for (int r = 0; r < size(); ++r) parts.push_back(offer(r).in->bytes() + rank_ * bytes_of(out));
    reduce_in_order(out.bytes(), parts, out.numel(), out.dtype(), Reduce::sum);
    proceed();
  }

  void do_all_to_all(Tensor& out, std::span<const int> recv, const Tensor& in, std::span<const int> send) override {
    const Shape row = in.shape().with(0, 1);
    const std::int64_t row_bytes = row.numel() * static_cast<std::int64_t>(size_of(in.dtype()));
    enter({.call = Call::all_to_all(in), .in = &in, .send = send, .recv = recv});
    std::int64_t to = 0;
    for (int r = 0; r < size(); ++r) {
      const std::span<const int> counts = offer(r).send;
      std::int64_t from = 0;
      for (int before = 0; before < rank_; ++before) from += counts[static_cast<std::size_t>(before)];
      const std::int64_t rows = counts[static_cast<std::size_t>(rank_)];
      copy(out, to * row_bytes, *offer(r).in, from * row_bytes, rows * row_bytes);
      to += rows;
    }
    proceed();
  }

  std::unique_ptr<ProcessGroup> do_split(int colour) override {
    enter({.call = {Collective::split}, .colour = colour});
    std::vector<int> members, ranks;  // of my part: numbers in the run, and here
    for (int r = 0; r < size(); ++r)
      if (offer(r).colour == colour) {
        members.push_back(hub_.members[static_cast<std::size_t>(r)]);
        ranks.push_back(r);
      }
    if (ranks.front() == rank_) offer(rank_).part = &run_.make_hub(members);
    proceed();
    Hub& part = *offer(ranks.front()).part;
    proceed();
    const auto mine = std::ranges::find(ranks, rank_) - ranks.begin();
    return std::make_unique<ThreadGroup>(run_, part, static_cast<int>(mine));
  }

  void enter(Offer mine) { run_.meet(hub_, rank_, std::move(mine)); }

  // Nobody's offer or tensor is read by others after this.
  void proceed() { run_.meet_again(hub_); }

  Offer& offer(int rank) { return hub_.offers[static_cast<std::size_t>(rank)]; }

  Run& run_;
  Hub& hub_;
  const int rank_;
};

}  // namespace

void run_ranks(int size, const std::function<void(ProcessGroup& world)>& body) {
  SY_CHECK(size >= 1, "run_ranks: ", size, " ranks");
  Run run(size);
  std::vector<int> everyone(static_cast<std::size_t>(size));
  std::iota(everyone.begin(), everyone.end(), 0);
  Hub& hub = run.make_hub(everyone);

  const auto live = [&](int rank) {
    try {
      ThreadGroup world(run, hub, rank);
      body(world);
      run.leave(rank, nullptr);
    } catch (...) {
      run.leave(rank, std::current_exception());
    }
  };
  {
    std::vector<std::jthread> threads;
    try {
      for (int rank : everyone) threads.emplace_back(live, rank);
    } catch (...) {  // no more threads to be had: the ranks that exist must not wait for the others
      run.leave(static_cast<int>(threads.size()), std::current_exception());
    }
  }
  if (run.failure()) std::rethrow_exception(run.failure());
}

}  // namespace switchyard
