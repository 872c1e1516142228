#pragma once

// A SIMT machine on the host: runs a CUDA kernel's threads as fibers, one block at a time, so that a kernel's
// arithmetic, indexing and barriers can be tested where there is no GPU. A test device, never a backend.
//
// A thread runs until it meets a barrier or a warp exchange and then gives way to another, which the schedule chooses:
// code that is right gives the same result under every schedule, code that lacks a barrier does not. What this cannot
// show: two threads that read, change and write one place (a thread is never left between), and caches.

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <source_location>
#include <stdexcept>

#include "simt/guarded.h"
#include "simt/vector_types.h"

namespace simt {

// What a kernel did wrong; the text begins with the kernel, and the block and thread where that is known.
class Error : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Launch {
  const char* kernel;
  dim3 grid, block;
  std::size_t shared_bytes;
};

// Which thread of a block goes on, and which block comes next: 0 the lowest, 1 the highest; in both, a warp goes on to
// its next __syncthreads before another does. Any other seed draws them at random, warps and lanes mixed.
void set_schedule(unsigned seed);

// Runs body once for every thread of every block. Throws Error; a launch that did runs no further thread, and the next
// one finds the machine as new.
void run(const Launch& launch, const std::function<void()>& body);

// A pointer that a kernel is given: null, or into device memory or its guards. Else throws Error.
void check_pointer(const char* kernel, const void* p);
template <class T>
void check_argument(const char* kernel, const T& argument) {
  if constexpr (std::is_pointer_v<T>) check_pointer(kernel, argument);
}

// "rms_norm, block (0, 0, 0), thread (3, 0, 0)" while a kernel's thread runs, else "no kernel".
const char* where();
// Throws: thread, kernel and "what: index outside size".
[[noreturn]] void fail(const char* what, std::int64_t index, std::int64_t size);

inline void check_aligned(const void* p, std::size_t alignment) {
  if (const auto over = reinterpret_cast<std::uintptr_t>(p) % alignment)
    fail("an address, modulo the bytes of its access", std::int64_t(over), std::int64_t(alignment));
}

// Where the running thread is; of no meaning outside kernels.
struct Place {
  dim3 thread, block, block_size, grid;
};
extern constinit thread_local Place here;
inline dim3 thread_idx() { return here.thread; }
inline dim3 block_idx() { return here.block; }
inline dim3 block_dim() { return here.block_size; }
inline dim3 grid_dim() { return here.grid; }

// The n-th piece of shared memory that the thread takes, behind `offset` bytes of others (shared.h).
std::byte* take_shared(int n, std::size_t offset, std::size_t bytes);

// All threads of the block meet here, at the same place in the code: a GPU counts only how many came.
void sync_threads(std::source_location at = std::source_location::current());

constexpr int kWarp = 32;
constexpr std::size_t kMostExchanged = 64;  // bytes a lane

// Every lane of mask comes, at the same place in the code, with `size` bytes and leaves with those of all 32 lanes,
// `size` apart; lanes outside mask are poison. All of mask must come, also where a GPU would not wait for lanes that
// have returned.
void exchange(unsigned mask, const void* mine, std::size_t size, void* all, std::source_location at);

template <class T>
std::array<T, kWarp> exchange(unsigned mask, const T& mine, std::source_location at = std::source_location::current()) {
  static_assert(sizeof(T) <= kMostExchanged);
  std::array<T, kWarp> all;
  exchange(mask, &mine, sizeof(T), all.data(), at);
  return all;
}
int lane();

}  // namespace simt
