#pragma once

#include "dist/process_group.h"

namespace switchyard {

// The ranks of `host`, which also carry tensors on `device`, the one of this rank. Ranks on the CPU get an equal group;
// with a GPU each they talk through NCCL, and where some share a GPU, which NCCL refuses, through host memory. Every
// rank calls. The host group outlives the result, and keeps the timeout: what other ranks do wrong is found within
// `timeout_s` seconds, on the host and on the device.
std::unique_ptr<ProcessGroup> make_device_world(ProcessGroup& host, Device device, double timeout_s = 600);

// Carries tensors of the device through host memory and the host group: the host group's bits, at the price of two
// copies. The device waits.
std::unique_ptr<ProcessGroup> make_host_staged_group(std::unique_ptr<ProcessGroup> host, Device device);

// Carries tensors of the device, a GPU that no other rank uses, with NCCL, on a stream of its own; tensors in host
// memory go to the host group. What other ranks, or the links to them, do wrong in `seconds` at most is an Error
// (Fault::communication) on the next call of this group or of one split from it: then the GPU waits for nobody any
// more, and what it computed since is worthless. Error (Fault::usage) in a build without NCCL.
//
// Order of sums. NCCL adds the parts of an element in the order of its rings or trees, which follows from the number
// and the links of the GPUs, the size of the tensor and the element's place in it, and so differs from rank order:
// layouts agree to f32 rounding. All ranks get the same bits. The same layout gives the same bits again with the same
// NCCL on machines of the same shape; reductions inside the switch (NVLS), whose order may depend on what was allocated
// before, are off unless NCCL_NVLS_ENABLE says otherwise. To keep the bits over more, fix NCCL's choices by hand:
// NCCL_ALGO=Ring NCCL_PROTO=Simple NCCL_MIN_NCHANNELS=8 NCCL_MAX_NCHANNELS=8.
std::unique_ptr<ProcessGroup> make_nccl_group(std::unique_ptr<ProcessGroup> host, Device device, double seconds = 600);

// What the two have in common: the ranks are the host group's, host tensors travel there, and a group of one carries
// nothing anywhere.
class DeviceGroup : public ProcessGroup {
 public:
  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }
  void barrier() override;
  void set_timeout(double seconds) override { host_->set_timeout(seconds); }
  bool carries(Device device) const override { return device == Device{} || device == device_; }
  [[noreturn]] void abort(int exit_code) override;

 protected:
  DeviceGroup(std::unique_ptr<ProcessGroup> host, Device device) : host_(std::move(host)), device_(device) {}

  ProcessGroup& host() { return *host_; }
  Device device() const { return device_; }

 private:
  void do_all_reduce(Tensor& x, Reduce op) final;
  Wait do_start_all_reduce(Tensor& x, Reduce op) final;
  void do_broadcast(Tensor& x, int root) final;
  void do_all_gather(Tensor& out, const Tensor& in) final;
  Wait do_start_all_gather(Tensor& out, const Tensor& in) final;
  void do_reduce_scatter(Tensor& out, const Tensor& in) final;
  Wait do_start_reduce_scatter(Tensor& out, const Tensor& in) final;
  void do_all_to_all(Tensor& out, std::span<const int> recv, const Tensor& in, std::span<const int> send) final;
  Wait do_start_all_to_all(Tensor& out, std::span<const int> recv, const Tensor& in, std::span<const int> send) final;
  std::unique_ptr<ProcessGroup> do_split(int colour) final;
  // Whether the call is the host group's; throws what went wrong before it.
  bool is_for_host(const Tensor& x);

  // Throws what went wrong since the last call.
  virtual void check() {}
  // The same calls among several ranks, with tensors on the device.
  virtual Wait device_all_reduce(Tensor& x, Reduce op) = 0;
  virtual void device_broadcast(Tensor& x, int root) = 0;
  virtual Wait device_all_gather(Tensor& out, const Tensor& in) = 0;
  virtual Wait device_reduce_scatter(Tensor& out, const Tensor& in) = 0;
  virtual Wait device_all_to_all(Tensor& out, std::span<const int> recv, const Tensor& in,
                                 std::span<const int> send) = 0;
  virtual std::unique_ptr<ProcessGroup> part(std::unique_ptr<ProcessGroup> host) = 0;

  std::unique_ptr<ProcessGroup> host_;
  Device device_;
};

}  // namespace switchyard
