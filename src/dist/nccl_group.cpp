#include <nccl.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

#include "dist/device_group.h"
#include "tensor/cuda/stream.h"
#include "tensor/kernels.h"

// The one place that knows NCCL.
namespace switchyard {
namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

std::string said_by(ncclResult_t result, ncclComm_t comm) {
  const char* details = ncclGetLastError(comm);
  return text(ncclGetErrorString(result), details && *details ? text(" (", details, ")") : "");
}

// A collective on the stream: begun when the GPU has come to it, done when it is through.
struct Collective {
  std::string what;
  ncclComm_t comm;
  std::shared_ptr<cuda::Event> begun, done;
  std::optional<Clock::time_point> since;  // when it was first seen begun
};

// All that a rank does with NCCL, whatever the group: one stream, since kernels of two communicators that run at once
// may each hold the multiprocessors that the other needs, and one thread that watches it. In NCCL's non-blocking mode
// no call waits for other ranks, so the lock is held for short times only.
class Line {
 public:
  Line(Device device, int rank, double seconds)
      : device_(device), rank_(rank), limit_(seconds), stream_(device), watcher_([this] { watch(); }) {}

  // After a failure the communicators may be stuck in NCCL for good, and the watcher with them: then they are left.
  static void close(std::unique_ptr<Line> line) {
    std::unique_lock lock(line->mutex_);
    line->closing_ = true;
    line->changed_.notify_all();
    constexpr Seconds kPatience{10};
    const bool quiet = line->changed_.wait_for(lock, kPatience, [&] { return line->watched_; });
    lock.unlock();
    if (quiet) {
      line->watcher_.join();
    } else {
      line->watcher_.detach();
      static_cast<void>(line.release());
    }
  }

  void check() {
    const std::scoped_lock lock(mutex_);
    check_locked();
  }

  ncclComm_t join(const ncclUniqueId& id, int rank, int size, const std::string& what) {
    cuda::make_current(device_);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclComm_t comm = nullptr;
    const ncclResult_t result = [&] {
      const std::scoped_lock lock(mutex_);
      check_locked();
      const ncclResult_t status = ncclCommInitRankConfig(&comm, size, id, rank, &config);
      if (comm) comms_.insert(comm);
      return status;
    }();
    settle(comm, result, what);
    return comm;
  }

  void leave(ncclComm_t comm) {
    const ncclResult_t result = [&] {
      const std::scoped_lock lock(mutex_);
      check_locked();
      return ncclCommFinalize(comm);
    }();
    settle(comm, result, "the end of a group");
    const std::scoped_lock lock(mutex_);
    check_locked();
    std::erase_if(issued_, [&](const Collective& c) { return c.comm == comm; });
    comms_.erase(comm);
    ncclCommDestroy(comm);
  }

  // Puts start(stream) behind what the calling thread has put on the GPU so far. What it puts there next comes after it
  // only when the returned Wait was called.
  template <class Start>
  Wait run(ncclComm_t comm, const std::string& what, const Start& start) {
    CUstream_st* const compute = cuda::compute_stream(device_);
    cuda::follow(stream_.handle(), cuda::Event(compute));
    auto begun = std::make_shared<cuda::Event>(stream_.handle());
    const ncclResult_t result = [&] {
      const std::scoped_lock lock(mutex_);
      check_locked();
      return start(stream_.handle());
    }();
    settle(comm, result, what);
    auto done = std::make_shared<cuda::Event>(stream_.handle());
    {
      const std::scoped_lock lock(mutex_);
      forget_done();
      issued_.push_back({what, comm, std::move(begun), done, {}});
    }
    return [this, compute, done] {
      cuda::follow(compute, *done);
      check();
    };
  }

  // Ends everything: this rank's groups are of no use any more.
  void fail(const std::string& why) {
    const std::scoped_lock lock(mutex_);
    fail_locked(why);
  }

 private:
  void check_locked() { SY_REQUIRE(!failure_, Fault::communication, *failure_); }

  void fail_locked(const std::string& why) {
    if (!failure_) failure_ = text("rank ", rank_, ": ", why);
    changed_.notify_all();
  }

  // Waits until the call is on the stream, which takes other ranks only the first time.
  void settle(ncclComm_t comm, ncclResult_t result, const std::string& what) {
    const Clock::time_point begin = Clock::now();
    for (int round = 0; result == ncclInProgress; ++round) {
      if (round < 100)
        std::this_thread::yield();
      else
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      const Seconds waited = Clock::now() - begin;
      const std::scoped_lock lock(mutex_);
      if (waited > limit_) fail_locked(late(what, waited));
      check_locked();
      const ncclResult_t status = ncclCommGetAsyncError(comm, &result);
      if (status != ncclSuccess) result = status;
    }
    if (result == ncclSuccess) return;
    const std::scoped_lock lock(mutex_);
    check_locked();
    fail_locked(text(what, " failed: ", said_by(result, comm)));
    check_locked();
  }

  static std::string late(const std::string& what, Seconds waited) {
    return text("waited ", std::round(waited.count() * 10) / 10, " s in ", what,
                "; another rank did not come, or the way to it is broken");
  }

  // Looks after the communicators until the end, or until something is wrong: then it takes them down.
  void watch() {
    const Seconds pause = std::min(Seconds(0.1), limit_ / 8);
    std::unique_lock lock(mutex_);
    try {
      cuda::make_current(device_);
      while (!closing_ && !failure_) {
        look();
        changed_.wait_for(lock, pause, [&] { return closing_ || failure_; });
      }
    } catch (const std::exception& error) {
      fail_locked(error.what());
    }
    if (failure_) take_down(lock);
    watched_ = true;
    changed_.notify_all();
  }

  void look() {
    forget_done();
    for (const ncclComm_t comm : comms_) {
      ncclResult_t result = ncclSuccess;
      const ncclResult_t status = ncclCommGetAsyncError(comm, &result);
      if (status != ncclSuccess) result = status;
      if (result == ncclSuccess || result == ncclInProgress) continue;
      return fail_locked(
          text(issued_.empty() ? "between collectives" : "in " + issued_.front().what, ": ", said_by(result, comm)));
    }
    if (issued_.empty()) return;
    Collective& first = issued_.front();
    const Clock::time_point now = Clock::now();
    if (!first.since && first.begun->reached()) first.since = now;
    if (first.since && now - *first.since > limit_) fail_locked(late(first.what, now - *first.since));
  }

  void forget_done() {
    while (!issued_.empty() && issued_.front().done->reached()) issued_.pop_front();
  }

  // All at once (NCCL does so since 2.22), since one may wait for kernels of another; without the lock, since it may
  // take long.
  void take_down(std::unique_lock<std::mutex>& lock) {
    const std::set<ncclComm_t> comms = std::exchange(comms_, {});
    lock.unlock();
    ncclGroupStart();
    for (const ncclComm_t comm : comms) ncclCommAbort(comm);
    ncclGroupEnd();
    lock.lock();
  }

  const Device device_;
  const int rank_;
  const Seconds limit_;
  const cuda::SideStream stream_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<ncclComm_t> comms_;
  std::deque<Collective> issued_;
  std::optional<std::string> failure_;
  bool closing_ = false, watched_ = false;
  std::thread watcher_;  // the last member: it uses the others
};

class NcclGroup final : public DeviceGroup {
 public:
  NcclGroup(std::unique_ptr<ProcessGroup> host, Device device, std::shared_ptr<Line> line)
      : DeviceGroup(std::move(host), device), line_(std::move(line)) {}

  // Where an exception ends the group, the others do not take part, and nothing that was begun will end.
  ~NcclGroup() override {
    if (!comm_) return;
    try {
      if (std::uncaught_exceptions() > exceptions_at_birth_)
        line_->fail("left after an error");
      else
        line_->leave(comm_);
    } catch (const std::exception&) {  // the watcher takes it down, and the next call says why
    }
  }

  bool overlaps(Device on) const override { return on == device(); }

 private:
  void check() override { line_->check(); }

  // NCCL's largest of a NaN and a number is the number; ours is the NaN. The host group knows, and these are few.
  Wait device_all_reduce(Tensor& x, Reduce op) override {
    if (op == Reduce::max && x.dtype() == DType::f32) {
      Tensor staged = to_device(x, Device{});
      host().all_reduce(staged, op);
      kernels(device()).copy(x, staged);
      return {};
    }
    const ncclDataType_t type = x.dtype() == DType::f32 ? ncclFloat32 : ncclInt32;
    const bool sum = op == Reduce::sum;
    return run(Call::all_reduce(x, op), [&, n = static_cast<std::size_t>(x.numel())](CUstream_st* stream) {
      return ncclAllReduce(x.bytes(), x.bytes(), n, type, sum ? ncclSum : ncclMax, comm_, stream);
    });
  }

  void device_broadcast(Tensor& x, int root) override {
    run(Call::broadcast(x, root), [&](CUstream_st* stream) {
      return ncclBroadcast(x.bytes(), x.bytes(), x.size_in_bytes(), ncclUint8, root, comm_, stream);
    })();
  }

  Wait device_all_gather(Tensor& out, const Tensor& in) override {
    return run(Call::all_gather(in), [&](CUstream_st* stream) {
      return ncclAllGather(in.bytes(), out.bytes(), in.size_in_bytes(), ncclUint8, comm_, stream);
    });
  }

  Wait device_reduce_scatter(Tensor& out, const Tensor& in) override {
    const ncclDataType_t type = in.dtype() == DType::f32 ? ncclFloat32 : ncclBfloat16;
    return run(Call::reduce_scatter(in), [&, n = static_cast<std::size_t>(out.numel())](CUstream_st* stream) {
      return ncclReduceScatter(in.bytes(), out.bytes(), n, type, ncclSum, comm_, stream);
    });
  }

  Wait device_all_to_all(Tensor& out, std::span<const int> recv, const Tensor& in, std::span<const int> send) override {
    const Shape row = in.shape().with(0, 1);
    const std::size_t width = static_cast<std::size_t>(row.numel()) * size_of(in.dtype());
    return run(Call::all_to_all(in), [&](CUstream_st* stream) {
      ncclResult_t result = ncclGroupStart();
      const auto note = [&](ncclResult_t next) {  // the first error stays
        if (result == ncclSuccess || result == ncclInProgress) result = next;
      };
      const std::byte* from = in.bytes();
      std::byte* to = out.bytes();
      for (int r = 0; r < size(); ++r) {
        const auto i = static_cast<std::size_t>(r);
        const std::size_t sent = width * static_cast<std::size_t>(send[i]);
        const std::size_t received = width * static_cast<std::size_t>(recv[i]);
        if (sent > 0) note(ncclSend(from, sent, ncclUint8, r, comm_, stream));
        if (received > 0) note(ncclRecv(to, received, ncclUint8, r, comm_, stream));
        from += sent;
        to += received;
      }
      note(ncclGroupEnd());
      return result;
    });
  }

  std::unique_ptr<ProcessGroup> part(std::unique_ptr<ProcessGroup> host) override {
    return std::make_unique<NcclGroup>(std::move(host), device(), line_);
  }

  template <class Start>
  Wait run(const Call& call, const Start& start) {
    const std::string what = text(call, " among ", size(), " ranks");
    if (!comm_) comm_ = join(what);
    return line_->run(comm_, what, start);
  }

  // The first collective makes the communicator: many groups never carry a device's tensors.
  ncclComm_t join(const std::string& what) {
    ncclUniqueId id;
    std::string bytes;
    if (rank() == 0 && ncclGetUniqueId(&id) == ncclSuccess) bytes.assign(id.internal, sizeof(id.internal));
    bytes = broadcast_text(host(), bytes, 0);
    SY_REQUIRE(bytes.size() == sizeof(id.internal), Fault::communication,
               "NCCL finds no network to begin with: ", said_by(ncclSystemError, nullptr));
    std::memcpy(id.internal, bytes.data(), bytes.size());
    return line_->join(id, rank(), size(), what);
  }

  std::shared_ptr<Line> line_;
  ncclComm_t comm_ = nullptr;
  int exceptions_at_birth_ = std::uncaught_exceptions();
};

// Reductions in the switch, whose order may depend on more than the layout, unless the user asks for them.
void prefer_fixed_orders() {
  static std::once_flag once;
  std::call_once(once, [] { setenv("NCCL_NVLS_ENABLE", "0", /*overwrite=*/0); });
}

}  // namespace

std::unique_ptr<ProcessGroup> make_nccl_group(std::unique_ptr<ProcessGroup> host, Device device, double seconds) {
  prefer_fixed_orders();
  const std::shared_ptr<Line> line(new Line(device, host->rank(), seconds),
                                   [](Line* l) { Line::close(std::unique_ptr<Line>(l)); });
  return std::make_unique<NcclGroup>(std::move(host), device, line);
}

}  // namespace switchyard
