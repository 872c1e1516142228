#include "tensor/memory.h"

#include <algorithm>
#include <bit>
#include <map>
#include <mutex>
#include <vector>

#include "tensor/block_size.h"
#include "tensor/error.h"
#include "tensor/kernels.h"

namespace switchyard {
namespace {

struct Cache {
  std::mutex mutex;
  std::map<std::size_t, std::vector<std::byte*>> idle;  // by block size
  MemoryUse use;
};

// Never destroyed: tensors in static storage may outlive any destructor order.
Cache& cache_of(Device device) {
  static std::mutex mutex;
  static auto* caches = new std::map<std::pair<int, int>, Cache>;
  const std::scoped_lock lock(mutex);
  return (*caches)[{static_cast<int>(device.type), device.index}];
}

void empty(Cache& cache, Device device) {
  for (auto& [size, blocks] : cache.idle)
    for (std::byte* block : blocks) {
      kernels(device).system_release(device, block, size);
      cache.use.reserved -= static_cast<std::int64_t>(size);
    }
  cache.idle.clear();
}

std::string account(const MemoryUse& use) {
  std::string out;
  for (int i = 0; i < kMemoryKinds; ++i)
    out +=
        text(i ? ", " : "", name_of(static_cast<Memory>(i)), " ", use.now[static_cast<std::size_t>(i)] >> 20, " MiB");
  return out;
}

}  // namespace

std::byte* allocate(Device device, std::size_t bytes, Memory kind) {
  const std::size_t size = block_size(bytes);
  Cache& cache = cache_of(device);
  const std::scoped_lock lock(cache.mutex);

  std::byte* block = nullptr;
  if (auto it = cache.idle.find(size); it != cache.idle.end() && !it->second.empty()) {
    block = it->second.back();
    it->second.pop_back();
  } else {
    block = kernels(device).system_allocate(device, size);
    if (!block) {
      empty(cache, device);
      block = kernels(device).system_allocate(device, size);
    }
    SY_REQUIRE(block, Fault::memory, device, " has no memory for ", size >> 20, " MiB more of ", name_of(kind),
               "; in use: ", account(cache.use));
    cache.use.reserved += static_cast<std::int64_t>(size);
  }

  MemoryUse& use = cache.use;
  const auto k = static_cast<std::size_t>(kind);
  use.now[k] += static_cast<std::int64_t>(size);
  use.total_now += static_cast<std::int64_t>(size);
  use.peak[k] = std::max(use.peak[k], use.now[k]);
  use.total_peak = std::max(use.total_peak, use.total_now);
  return block;
}

void release(Device device, std::byte* block, std::size_t bytes, Memory kind) {
  const std::size_t size = block_size(bytes);
  Cache& cache = cache_of(device);
  const std::scoped_lock lock(cache.mutex);
  cache.idle[size].push_back(block);
  cache.use.now[static_cast<std::size_t>(kind)] -= static_cast<std::int64_t>(size);
  cache.use.total_now -= static_cast<std::int64_t>(size);
}

MemoryUse memory_use(Device device) {
  Cache& cache = cache_of(device);
  const std::scoped_lock lock(cache.mutex);
  return cache.use;
}

void reset_peak(Device device) {
  Cache& cache = cache_of(device);
  const std::scoped_lock lock(cache.mutex);
  cache.use.peak = cache.use.now;
  cache.use.total_peak = cache.use.total_now;
}

void release_cache(Device device) {
  Cache& cache = cache_of(device);
  const std::scoped_lock lock(cache.mutex);
  empty(cache, device);
}

}  // namespace switchyard
