// CUDA's runtime calls on the SIMT machine, and the caching allocator's stand-in: every tensor on the device lies in
// guarded memory of just its size (guarded.h), so that a kernel that reads or writes past one is caught.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <new>

#include "simt/guarded.h"
#include "tensor/error.h"
#include "tensor/memory.h"

namespace {

// Whether a copy's end lies where the caller says: all of it in one block of device memory, or none of it.
bool lies(const void* begin, std::size_t bytes, bool on_device) {
  return simt::on_device(begin, on_device ? bytes : 0) == on_device;
}

}  // namespace

cudaError_t cudaMalloc(void** memory, std::size_t bytes) try {
  *memory = simt::take(bytes, simt::Where::device);
  return cudaSuccess;
} catch (const std::bad_alloc&) {
  return cudaErrorMemoryAllocation;
}
cudaError_t cudaFree(void* memory) { return simt::give(memory), cudaSuccess; }
cudaError_t cudaMallocHost(void** memory, std::size_t bytes) { return *memory = std::malloc(bytes), cudaSuccess; }
cudaError_t cudaFreeHost(void* memory) { return std::free(memory), cudaSuccess; }
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
  if (bytes == 0) return cudaSuccess;
  if (!lies(to, bytes, kind != cudaMemcpyDeviceToHost) || !lies(from, bytes, kind != cudaMemcpyHostToDevice))
    return cudaErrorInvalidValue;
  const simt::DeviceAccess access;
  std::memmove(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t) {
  if (bytes == 0) return cudaSuccess;
  if (!simt::on_device(memory, bytes)) return cudaErrorInvalidValue;
  const simt::DeviceAccess access;
  std::memset(memory, value, bytes);
  return cudaSuccess;
}
// Few, so that kernels whose grids are sized to the GPU loop in their tests.
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) { return *value = 2, cudaSuccess; }

namespace switchyard {
namespace {
std::mutex mutex;
MemoryUse use;  // guarded by mutex

void count(Memory kind, std::int64_t bytes) {
  const std::scoped_lock lock(mutex);
  const auto k = static_cast<std::size_t>(kind);
  use.now[k] += bytes;
  use.total_now += bytes;
  use.peak[k] = std::max(use.peak[k], use.now[k]);
  use.total_peak = std::max(use.total_peak, use.total_now);
}
}  // namespace

std::byte* allocate(Device device, std::size_t bytes, Memory kind) {
  count(kind, static_cast<std::int64_t>(bytes));
  return simt::take(bytes, device.type == DeviceType::cuda ? simt::Where::device : simt::Where::host);
}
void release(Device, std::byte* block, std::size_t bytes, Memory kind) {
  count(kind, -static_cast<std::int64_t>(bytes));
  simt::give(block);
}
MemoryUse memory_use(Device) {
  const std::scoped_lock lock(mutex);
  return use;
}
void reset_peak(Device) {
  const std::scoped_lock lock(mutex);
  use.peak = use.now;
  use.total_peak = use.total_now;
}
void release_cache(Device) {}

}  // namespace switchyard
