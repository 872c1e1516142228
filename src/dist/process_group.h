#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "dist/call.h"

namespace switchyard {

// Makes what the calling thread puts on its device from then on come after a collective that was started. Empty where
// the collective is done already.
using Wait = std::function<void()>;

// Ranks that talk to each other. Every rank of the group makes the same calls in the same order, with tensors in host
// memory (device_group.h has groups that also carry tensors of a device). Sums are taken in rank order, so that every
// kind of group, with the same ranks, gives the same bits on every rank; NCCL alone adds in an order of its own. A
// group of one is an ordinary group. Wrong arguments are contract errors of the caller; what goes wrong between ranks
// is Error (Fault::communication) and names the rank and the call.
class ProcessGroup {
 public:
  virtual ~ProcessGroup() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual void barrier() = 0;
  // How long a rank of this group, of those split from it and of the one it was split from waits for others before it
  // finds out who does not come. Groups that see such ranks at once ignore it.
  virtual void set_timeout(double) {}
  // Whether tensors there may be given to the calls below, all tensors of one call on the same device.
  virtual bool carries(Device device) const { return device == Device{}; }
  // Whether what a start_ call begins with tensors there travels while the device computes.
  virtual bool overlaps(Device) const { return false; }

  void all_reduce(Tensor& x, Reduce op);  // in place; f32 or i32, of one shape everywhere; a NaN is the largest
  // The same, begun and not awaited: what comes on the device until the returned Wait is called runs beside it and
  // leaves x alone. x lives until then.
  [[nodiscard]] Wait start_all_reduce(Tensor& x, Reduce op);
  void broadcast(Tensor& x, int root);  // any type, of one shape everywhere
  // out is `size` blocks of in's size, in rank order; any type
  void all_gather(Tensor& out, const Tensor& in);
  // The same, begun and not awaited; both live until the Wait is called.
  [[nodiscard]] Wait start_all_gather(Tensor& out, const Tensor& in);
  // in is `size` blocks of out's size, in rank order; out becomes the sum of the ranks' blocks for this rank. f32, or
  // bf16 summed in f32 and rounded once (NCCL, which adds from rank to rank, rounds each time).
  void reduce_scatter(Tensor& out, const Tensor& in);
  // The same, begun and not awaited; both live until the Wait is called.
  [[nodiscard]] Wait start_reduce_scatter(Tensor& out, const Tensor& in);
  // in: my rows, send[i] of them for rank i, in rank order; out: recv[i] of them from rank i. Rows of any width and
  // type.
  void all_to_all(Tensor& out, std::span<const int> recv, const Tensor& in, std::span<const int> send);
  // The same, begun and not awaited; both live until the Wait is called.
  [[nodiscard]] Wait start_all_to_all(Tensor& out, std::span<const int> recv, const Tensor& in,
                                      std::span<const int> send);

  // What this rank has sent in this group so far.
  const TrafficTable& traffic() const { return traffic_; }

  // The ranks that name the same colour (0 or more), in the order of their ranks here. Every rank takes part.
  std::unique_ptr<ProcessGroup> split(int colour);

  // Ends the whole job at once with this exit code; for errors that only this rank saw.
  [[noreturn]] virtual void abort(int exit_code) = 0;

 private:
  // The same calls, with arguments that hold what is said above.
  virtual void do_all_reduce(Tensor& x, Reduce op) = 0;
  virtual Wait do_start_all_reduce(Tensor& x, Reduce op) {
    do_all_reduce(x, op);
    return {};
  }
  virtual void do_broadcast(Tensor& x, int root) = 0;
  virtual void do_all_gather(Tensor& out, const Tensor& in) = 0;
  virtual Wait do_start_all_gather(Tensor& out, const Tensor& in) {
    do_all_gather(out, in);
    return {};
  }
  virtual void do_reduce_scatter(Tensor& out, const Tensor& in) = 0;
  virtual Wait do_start_reduce_scatter(Tensor& out, const Tensor& in) {
    do_reduce_scatter(out, in);
    return {};
  }
  virtual void do_all_to_all(Tensor& out, std::span<const int> recv, const Tensor& in, std::span<const int> send) = 0;
  virtual Wait do_start_all_to_all(Tensor& out, std::span<const int> recv, const Tensor& in,
                                   std::span<const int> send) {
    do_all_to_all(out, recv, in, send);
    return {};
  }
  virtual std::unique_ptr<ProcessGroup> do_split(int colour) = 0;

  void count(Collective collective, std::int64_t bytes);

  TrafficTable traffic_{};
};

// Strings of any length from every rank, in rank order.
std::vector<std::string> all_gather_text(ProcessGroup& group, const std::string& mine);
// The root's string on every rank.
std::string broadcast_text(ProcessGroup& group, const std::string& mine, int root);

// A group of one, without a launcher.
std::unique_ptr<ProcessGroup> make_self_group();

// Runs `body` once per rank, each on its own thread; the first failure stops every rank at its next call and is
// rethrown here. Ranks that wait for one that will never come are a failure too. No launcher, no sockets.
void run_ranks(int size, const std::function<void(ProcessGroup& world)>& body);

// The ranks that mpirun started. Initialises MPI once and finalises it at exit, unless an exception ended the world:
// then the process leaves without, and the launcher stops the other ranks. Without a launcher this process is the whole
// world, and MPI is not touched: the program then runs where no MPI is set up.
std::unique_ptr<ProcessGroup> make_mpi_world();

}  // namespace switchyard
