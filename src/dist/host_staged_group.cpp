#include <algorithm>
#include <map>

#include "dist/device_group.h"
#include "tensor/cuda/stream.h"
#include "tensor/kernels.h"

namespace switchyard {
namespace {

// Host memory that a device's tensors pass through, as large as the largest so far.
class Staging {
 public:
  explicit Staging(Device device) : device_(device) {}
  ~Staging() {
    for (auto& [dtype, memory] : memory_) unlock(memory);
  }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  // A place for a tensor like x; the next call for this type takes the same.
  Tensor place_for(const Tensor& x) {
    Tensor& memory = memory_[x.dtype()];
    if (!memory || memory.numel() < x.numel()) {
      unlock(memory);
      const std::int64_t before = memory ? memory.numel() : 0;
      memory = {};
      memory = Tensor::empty({std::max(x.numel(), before * 3 / 2)}, x.dtype(), Device{}, Memory::communication);
      if (device_.type == DeviceType::cuda) cuda::pin(memory.bytes(), memory.size_in_bytes());
    }
    return memory.rows(0, x.numel()).view(x.shape());
  }

 private:
  void unlock(Tensor& memory) {
    if (memory && device_.type == DeviceType::cuda) cuda::unpin(memory.bytes());
  }

  Device device_;
  std::map<DType, Tensor> memory_;
};

class HostStagedGroup final : public DeviceGroup {
 public:
  HostStagedGroup(std::unique_ptr<ProcessGroup> host, Device device)
      : DeviceGroup(std::move(host), device), in_(device), out_(device) {}

 private:
  // In pieces, which bound the staging memory; the sum of an element does not depend on what travels beside it.
  Wait device_all_reduce(Tensor& x, Reduce op) override {
    constexpr std::int64_t kPiece = 4 << 20;
    Tensor flat = x.view({x.numel()});
    for (std::int64_t begin = 0; begin < x.numel(); begin += kPiece) {
      Tensor piece = flat.rows(begin, std::min(begin + kPiece, x.numel()));
      Tensor staged = fetch(piece);
      host().all_reduce(staged, op);
      kernels(device()).copy(piece, staged);
    }
    return {};
  }

  void device_broadcast(Tensor& x, int root) override {
    Tensor staged = rank() == root ? fetch(x) : in_.place_for(x);
    host().broadcast(staged, root);
    if (rank() != root) kernels(device()).copy(x, staged);
  }

  Wait device_all_gather(Tensor& out, const Tensor& in) override {
    Tensor staged = out_.place_for(out);
    host().all_gather(staged, fetch(in));
    kernels(device()).copy(out, staged);
    return {};
  }

  Wait device_reduce_scatter(Tensor& out, const Tensor& in) override {
    Tensor staged = out_.place_for(out);
    host().reduce_scatter(staged, fetch(in));
    kernels(device()).copy(out, staged);
    return {};
  }

  Wait device_all_to_all(Tensor& out, std::span<const int> recv, const Tensor& in, std::span<const int> send) override {
    Tensor staged = out_.place_for(out);
    host().all_to_all(staged, recv, fetch(in), send);
    kernels(device()).copy(out, staged);
    return {};
  }

  std::unique_ptr<ProcessGroup> part(std::unique_ptr<ProcessGroup> host) override {
    return std::make_unique<HostStagedGroup>(std::move(host), device());
  }

  Tensor fetch(const Tensor& x) {
    Tensor staged = in_.place_for(x);
    kernels(device()).copy(staged, x);
    return staged;
  }

  Staging in_, out_;
};

}  // namespace

std::unique_ptr<ProcessGroup> make_host_staged_group(std::unique_ptr<ProcessGroup> host, Device device) {
  return std::make_unique<HostStagedGroup>(std::move(host), device);
}

}  // namespace switchyard
