#include "simt/simt.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "simt/fiber.h"
#include "simt/shared.h"

namespace simt {

constinit thread_local Place here;

namespace {

enum class State { ready, at_barrier, at_exchange, done };
constexpr unsigned kMostThreads = 1024, kNobody = kMostThreads;

// Thrown in a thread that waits, to end it when its block is given up.
struct Abandoned {};

struct Thread {
  dim3 idx;
  State state = State::ready;
  bool inside = false;  // the kernel has begun and not ended
  std::source_location at;
  // what it waits for and brought, in an exchange
  unsigned mask = 0;
  const void* mine = nullptr;
  std::size_t size = 0;
  void* all = nullptr;
};

class ReadySet {
 public:
  void fill(unsigned count) {
    for (unsigned w = 0; w < kWords; ++w)
      words_[w] = count <= 64 * w ? 0 : ~std::uint64_t{0} >> (count >= 64 * w + 64 ? 0 : 64 * w + 64 - count);
  }
  void insert(unsigned i) { words_[i / 64] |= std::uint64_t{1} << i % 64; }
  void erase(unsigned i) { words_[i / 64] &= ~(std::uint64_t{1} << i % 64); }
  unsigned first_from(unsigned begin) const {
    for (unsigned w = begin / 64; w < kWords; ++w) {
      const std::uint64_t word = w == begin / 64 ? words_[w] & ~std::uint64_t{0} << begin % 64 : words_[w];
      if (word) return 64 * w + unsigned(std::countr_zero(word));
    }
    return kNobody;
  }
  unsigned last() const {
    for (unsigned w = kWords; w-- > 0;)
      if (words_[w]) return 64 * w + 63 - unsigned(std::countl_zero(words_[w]));
    return kNobody;
  }

 private:
  static constexpr unsigned kWords = kMostThreads / 64;
  std::array<std::uint64_t, kWords> words_{};
};

std::string text(dim3 d) {
  return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) + ")";
}
std::string text(const std::source_location& at) {
  const std::string file = at.file_name();
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(at.line());
}
bool same(const std::source_location& a, const std::source_location& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}
std::size_t count(dim3 d) { return std::size_t{d.x} * d.y * d.z; }

// Of one system thread. Its fibers live as long as it does: each runs one thread of block after block, launch after
// launch.
class Machine {
 public:
  Machine() { add_signal_stack(); }
  ~Machine();

  void run(const Launch& launch, const std::function<void()>& body);
  bool running() const { return current_ != kNobody; }
  std::string where() const {
    return !launch_ ? "no kernel" : running() ? block() + ", thread " + text(self().idx) : block();
  }
  std::byte* take_shared(int n, std::size_t offset, std::size_t bytes);
  void sync_threads(const std::source_location& at);
  void exchange(unsigned mask, const void* mine, std::size_t size, void* all, const std::source_location& at);
  int lane() const { return int(current_ % kWarp); }

 private:
  Thread& self() { return threads_[current_]; }
  const Thread& self() const { return threads_[current_]; }
  std::string block() const { return std::string(launch_->kernel) + ", block " + text(here.block); }

  void live(unsigned i);
  void resume(unsigned i);
  void wait(State state, const std::source_location& at);
  unsigned choose();
  std::vector<std::size_t> block_order(std::size_t blocks);
  void run_block(std::size_t block);
  void meet_at_barrier();
  void meet_in_exchange();
  void release(Thread& t) {
    t.state = State::ready;
    ready_.insert(unsigned(&t - threads_.data()));
  }
  std::string who_waits() const;
  void abandon();

  const Launch* launch_ = nullptr;
  const std::function<void()>* body_ = nullptr;
  std::vector<Thread> threads_;  // of the block
  std::vector<std::unique_ptr<Fiber>> fibers_;
  SharedPieces shared_;
  ReadySet ready_;
  unsigned current_ = kNobody, at_barrier_ = 0, done_ = 0;
  bool abandoning_ = false, ending_ = false;
  std::exception_ptr error_;
  unsigned seed_ = 0;
  std::minstd_rand random_;
};

thread_local unsigned schedule = 0;

thread_local const Machine* present = nullptr;  // for who asks and needs none

Machine& machine() {
  thread_local Machine own;
  present = &own;
  return own;
}

Machine::~Machine() {
  present = nullptr;
  ending_ = true;
  for (const auto& fiber : fibers_) fiber->resume();
}

// The life of a fiber.
void Machine::live(unsigned i) {
  while (!ending_) {
    threads_[i].inside = true;
    try {
      (*body_)();
    } catch (const Abandoned&) {
    } catch (const Error&) {
      error_ = std::current_exception();
    } catch (const std::exception& e) {
      error_ = std::make_exception_ptr(Error(where() + " threw: " + e.what()));
    } catch (...) {
      error_ = std::make_exception_ptr(Error(where() + " threw something that is no std::exception"));
    }
    threads_[i].inside = false;
    threads_[i].state = State::done;
    ++done_;
    fibers_[i]->leave();
  }
}

void Machine::resume(unsigned i) {
  current_ = i;
  here.thread = threads_[i].idx;
  fibers_[i]->resume();
  current_ = kNobody;
}

void Machine::wait(State state, const std::source_location& at) {
  const unsigned me = current_;
  self().state = state;
  self().at = at;
  ready_.erase(me);
  state == State::at_barrier ? meet_at_barrier() : meet_in_exchange();
  fibers_[me]->leave();
  if (abandoning_) throw Abandoned();
}

void Machine::sync_threads(const std::source_location& at) { wait(State::at_barrier, at); }

void Machine::meet_at_barrier() {
  if (++at_barrier_ < threads_.size()) return;
  at_barrier_ = 0;
  for (const Thread& t : threads_)
    if (!same(t.at, threads_[0].at)) throw Error(block() + ": " + who_waits() + "they meet at different places");
  for (Thread& t : threads_) t.state = State::ready;
  ready_.fill(unsigned(threads_.size()));
}

void Machine::exchange(unsigned mask, const void* mine, std::size_t size, void* all, const std::source_location& at) {
  if (!(mask >> lane() & 1)) {
    char lanes[16];
    std::snprintf(lanes, sizeof lanes, "0x%08x", mask);
    throw Error(where() + ": lane " + std::to_string(lane()) + " is not in its own mask " + lanes + " (" + text(at) +
                ")");
  }
  Thread& t = self();
  t.mask = mask;
  t.mine = mine;
  t.size = size;
  t.all = all;
  wait(State::at_exchange, at);
}

// Lanes that all wait for the same mask swap what they brought.
void Machine::meet_in_exchange() {
  const unsigned first = current_ / kWarp * kWarp;
  const unsigned mask = self().mask;
  const std::size_t size = self().size;
  const auto each_lane = [&](auto f) {
    for (unsigned rest = mask; rest; rest &= rest - 1) {
      const unsigned l = unsigned(std::countr_zero(rest));
      if (first + l >= threads_.size() || !f(l, threads_[first + l])) return false;
    }
    return true;
  };
  if (!each_lane([&](unsigned, Thread& t) { return t.state == State::at_exchange && t.mask == mask; })) return;
  if (!each_lane([&](unsigned, Thread& t) { return t.size == size && same(t.at, self().at); }))
    throw Error(block() + ": " + who_waits() + "they meet at different places");
  std::byte all[kWarp * kMostExchanged];
  if (mask != 0xffffffffu) std::memset(all, 0xff, kWarp * size);
  each_lane([&](unsigned l, Thread& t) { return std::memcpy(all + l * size, t.mine, size), true; });
  each_lane([&](unsigned, Thread& t) { return std::memcpy(t.all, all, kWarp * size), release(t), true; });
}

// "32 threads wait at __syncthreads (a.cu:40), (0, 0, 0) the first; 16 threads have returned, (32, 0, 0) the first; "
std::string Machine::who_waits() const {
  std::string what;
  const auto alike = [](const Thread& a, const Thread& b) {
    return a.state == b.state && (a.state == State::done || same(a.at, b.at)) &&
           (a.state != State::at_exchange || a.mask == b.mask);
  };
  std::vector<const Thread*> kinds;
  for (const Thread& t : threads_) {
    if (std::ranges::any_of(kinds, [&](const Thread* k) { return alike(*k, t); })) continue;
    kinds.push_back(&t);
    const auto n = std::ranges::count_if(threads_, [&](const Thread& other) { return alike(other, t); });
    char lanes[16];
    std::snprintf(lanes, sizeof lanes, "0x%08x", t.mask);
    what +=
        std::to_string(n) + (n == 1 ? " thread " : " threads ") +
        (t.state == State::done          ? "returned"
         : t.state == State::at_barrier  ? "at __syncthreads (" + text(t.at) + ")"
         : t.state == State::at_exchange ? std::string("in a warp exchange of lanes ") + lanes + " (" + text(t.at) + ")"
                                         : "on the way") +
        ", " + text(t.idx) + " the first; ";
  }
  return what;
}

// The thread that goes on.
unsigned Machine::choose() {
  if (seed_ == 0) return ready_.first_from(0);
  if (seed_ == 1) return ready_.last();
  const unsigned from_random = ready_.first_from(unsigned(random_()) % unsigned(threads_.size()));
  return from_random != kNobody ? from_random : ready_.first_from(0);
}

std::vector<std::size_t> Machine::block_order(std::size_t blocks) {
  std::vector<std::size_t> order(blocks);
  std::iota(order.begin(), order.end(), 0u);
  if (seed_ == 1) std::ranges::reverse(order);
  if (seed_ > 1) std::ranges::shuffle(order, random_);
  return order;
}

void Machine::run_block(std::size_t block_number) {
  const dim3 grid = launch_->grid;
  here.block = dim3(unsigned(block_number % grid.x), unsigned(block_number / grid.x % grid.y),
                    unsigned(block_number / grid.x / grid.y));
  for (Thread& t : threads_) t.state = State::ready;
  ready_.fill(unsigned(threads_.size()));
  at_barrier_ = done_ = 0;
  shared_.begin_block();
  for (unsigned i = choose(); i != kNobody; i = choose()) {
    resume(i);
    if (threads_[i].state == State::done) ready_.erase(i);
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }
  if (done_ < threads_.size()) throw Error(block() + ": " + who_waits() + "they can never meet");
  if (const std::string what = shared_.damage(); !what.empty()) throw Error(block() + " " + what);
}

// Ends the threads that are in the middle of the kernel, so that its objects die and the fibers can serve again.
void Machine::abandon() {
  abandoning_ = true;
  for (unsigned i = 0; i < threads_.size(); ++i)
    if (threads_[i].inside) resume(i);
  abandoning_ = false;
  error_ = nullptr;
}

void Machine::run(const Launch& launch, const std::function<void()>& body) {
  const std::size_t threads = count(launch.block);
  if (launch_) throw Error(where() + " launches " + launch.kernel);
  if (threads == 0 || threads > kMostThreads || launch.shared_bytes > SharedPieces::kMostBytes)
    throw Error(std::string(launch.kernel) + ": a block of " + std::to_string(threads) + " threads and " +
                std::to_string(launch.shared_bytes) + " bytes of shared memory");
  const DeviceAccess access;
  launch_ = &launch;
  body_ = &body;
  seed_ = schedule;
  random_.seed(seed_);
  here = {.thread = {}, .block = {}, .block_size = launch.block, .grid = launch.grid};
  threads_.assign(threads, Thread{});
  for (unsigned i = 0; i < threads; ++i)
    threads_[i].idx =
        dim3(i % launch.block.x, i / launch.block.x % launch.block.y, i / (launch.block.x * launch.block.y));
  while (fibers_.size() < threads)
    fibers_.push_back(std::make_unique<Fiber>([this, i = unsigned(fibers_.size())] { live(i); }));
  shared_.begin_launch();
  std::exception_ptr failed;
  try {
    for (std::size_t block : block_order(count(launch.grid))) run_block(block);
  } catch (...) {
    failed = std::current_exception();
  }
  if (failed) abandon();
  launch_ = nullptr;
  const std::string what = damage();
  if (failed) std::rethrow_exception(failed);
  if (!what.empty()) throw Error(std::string(launch.kernel) + " " + what);
}

std::byte* Machine::take_shared(int n, std::size_t offset, std::size_t bytes) {
  if (n >= SharedPieces::kMost) fail("pieces of shared memory", n, SharedPieces::kMost);
  if (offset + bytes > launch_->shared_bytes)
    fail("the launch's shared bytes", std::int64_t(offset + bytes), std::int64_t(launch_->shared_bytes));
  return shared_.take(n, bytes);
}

}  // namespace

void set_schedule(unsigned seed) { schedule = seed; }

void run(const Launch& launch, const std::function<void()>& body) { machine().run(launch, body); }

void check_pointer(const char* kernel, const void* p) {
  if (p && !near_device(p)) throw Error(std::string(kernel) + " is given a pointer that is not into device memory");
}

const char* where() {
  thread_local std::string place;
  place = present ? present->where() : "no kernel";
  return place.c_str();
}

void fail(const char* what, std::int64_t index, std::int64_t size) {
  throw Error(std::string(where()) + ": " + what + ": " + std::to_string(index) + " outside " + std::to_string(size));
}

std::byte* take_shared(int n, std::size_t offset, std::size_t bytes) { return machine().take_shared(n, offset, bytes); }
void sync_threads(std::source_location at) { machine().sync_threads(at); }
void exchange(unsigned mask, const void* mine, std::size_t size, void* all, std::source_location at) {
  machine().exchange(mask, mine, size, all, at);
}
int lane() { return machine().lane(); }

}  // namespace simt
