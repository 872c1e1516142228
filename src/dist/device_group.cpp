#include "dist/device_group.h"

#include <cstdlib>
#include <set>

#include "dist/host.h"
#include "tensor/cuda/stream.h"
#include "tensor/kernels.h"

namespace switchyard {

void DeviceGroup::barrier() {
  check();
  host_->barrier();
}

void DeviceGroup::abort(int exit_code) {
  host_->abort(exit_code);
  std::abort();  // never reached, which the compiler cannot see through a virtual call
}

bool DeviceGroup::is_for_host(const Tensor& x) {
  check();
  return x.device() == Device{};
}

void DeviceGroup::do_all_reduce(Tensor& x, Reduce op) {
  if (const Wait wait = do_start_all_reduce(x, op)) wait();
}

Wait DeviceGroup::do_start_all_reduce(Tensor& x, Reduce op) {
  if (is_for_host(x)) return host_->start_all_reduce(x, op);
  return size() > 1 ? device_all_reduce(x, op) : Wait{};
}

void DeviceGroup::do_broadcast(Tensor& x, int root) {
  if (is_for_host(x)) return host_->broadcast(x, root);
  if (size() > 1) device_broadcast(x, root);
}

void DeviceGroup::do_all_gather(Tensor& out, const Tensor& in) {
  if (const Wait wait = do_start_all_gather(out, in)) wait();
}

Wait DeviceGroup::do_start_all_gather(Tensor& out, const Tensor& in) {
  if (is_for_host(in)) return host_->start_all_gather(out, in);
  if (size() > 1) return device_all_gather(out, in);
  kernels(device_).copy(out, in);
  return {};
}

void DeviceGroup::do_reduce_scatter(Tensor& out, const Tensor& in) {
  if (const Wait wait = do_start_reduce_scatter(out, in)) wait();
}

Wait DeviceGroup::do_start_reduce_scatter(Tensor& out, const Tensor& in) {
  if (is_for_host(in)) return host_->start_reduce_scatter(out, in);
  if (size() > 1) return device_reduce_scatter(out, in);
  kernels(device_).copy(out, in);
  return {};
}

void DeviceGroup::do_all_to_all(Tensor& out, std::span<const int> recv, const Tensor& in, std::span<const int> send) {
  if (const Wait wait = do_start_all_to_all(out, recv, in, send)) wait();
}

Wait DeviceGroup::do_start_all_to_all(Tensor& out, std::span<const int> recv, const Tensor& in,
                                      std::span<const int> send) {
  if (is_for_host(in)) return host_->start_all_to_all(out, recv, in, send);
  if (size() > 1) return device_all_to_all(out, recv, in, send);
  SY_CHECK(recv[0] == send[0], "all_to_all: rank 0 sends itself ", send[0], " rows and expects ", recv[0]);
  kernels(device_).copy(out, in);
  return {};
}

std::unique_ptr<ProcessGroup> DeviceGroup::do_split(int colour) {
  check();
  return part(host_->split(colour));
}

std::unique_ptr<ProcessGroup> make_device_world(ProcessGroup& host, Device device, double timeout_s) {
  host.set_timeout(timeout_s);
  auto ranks = host.split(0);
  if (device == Device{}) return ranks;
  const std::vector<std::string> gpus = all_gather_text(*ranks, host_name() + " " + cuda::gpu_address(device.index));
  const bool shared = std::set(gpus.begin(), gpus.end()).size() < gpus.size();
  // A single rank carries nothing anywhere, and needs no NCCL for it.
  if (shared || ranks->size() == 1) return make_host_staged_group(std::move(ranks), device);
  return make_nccl_group(std::move(ranks), device, timeout_s);
}

}  // namespace switchyard
