#pragma once

// Stands before the toolkit's header when .cu files are built for the host: the same words, meaning the SIMT machine.
// Only what src/tensor/cuda uses.

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <source_location>

#include "simt/simt.h"
#include "simt/vector_types.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict
// No __shared__: kernels carve dynamic shared memory (tensor/cuda/block.cuh), whose bounds are watched here.

#define threadIdx (::simt::thread_idx())
#define blockIdx (::simt::block_idx())
#define blockDim (::simt::block_dim())
#define gridDim (::simt::grid_dim())

// The runtime. Device memory is guarded host memory (guarded.h). Streams do kernels and copies at once; only a
// stand-in's collectives take their time (streams.h).
enum cudaError_t { cudaSuccess = 0, cudaErrorMemoryAllocation = 2, cudaErrorInvalidValue = 1, cudaErrorNotReady = 600 };
using cudaStream_t = struct CUstream_st*;
using cudaEvent_t = struct CUevent_st*;
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16 };
struct cudaDeviceProp {
  char name[256];
};
constexpr unsigned cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2, cudaHostRegisterPortable = 1;

cudaError_t cudaMalloc(void** memory, std::size_t bytes);
cudaError_t cudaFree(void* memory);
cudaError_t cudaMallocHost(void** memory, std::size_t bytes);
cudaError_t cudaFreeHost(void* memory);
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t);
cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int device);

inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t e) {
  return e == cudaSuccess                 ? "no error"
         : e == cudaErrorMemoryAllocation ? "out of memory"
                                          : "an error of the SIMT machine";
}
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
inline cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  return *least = *greatest = 0, cudaSuccess;
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* device, int) {
  return *device = {"SIMT machine"}, cudaSuccess;
}
inline cudaError_t cudaHostRegister(void*, std::size_t, unsigned) { return cudaSuccess; }
inline cudaError_t cudaHostUnregister(void*) { return cudaSuccess; }

// streams.cpp
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaDeviceGetPCIBusId(char* address, int size, int device);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventSynchronize(cudaEvent_t event);

// Barriers, votes and exchanges.
// They take the place in the code that they are called from (SimtSite), so that errors can name it.
using SimtSite = std::source_location;
inline void __syncthreads(SimtSite at = SimtSite::current()) { simt::sync_threads(at); }
inline void __syncwarp(unsigned mask = 0xffffffffu, SimtSite at = SimtSite::current()) {
  simt::exchange(mask, char{}, at);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, SimtSite at = SimtSite::current()) {
  const int base = simt::lane() / width * width;
  return simt::exchange(mask, value, at)[std::size_t(base + (source % width))];
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int step, int width = 32, SimtSite at = SimtSite::current()) {
  const int source = simt::lane() ^ step;
  const bool inside = source / width <= simt::lane() / width;
  return simt::exchange(mask, value, at)[std::size_t(inside ? source : simt::lane())];
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, int step, int width = 32, SimtSite at = SimtSite::current()) {
  const int lane = simt::lane(), source = lane - step;
  return simt::exchange(mask, value, at)[std::size_t(lane % width >= step ? source : lane)];
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, int step, int width = 32, SimtSite at = SimtSite::current()) {
  const int lane = simt::lane(), source = lane + step;
  return simt::exchange(mask, value, at)[std::size_t(lane % width + step < width ? source : lane)];
}
inline unsigned __ballot_sync(unsigned mask, bool vote, SimtSite at = SimtSite::current()) {
  const auto votes = simt::exchange(mask, vote, at);
  unsigned ballot = 0;
  for (unsigned l = 0; l < 32; ++l)
    if (mask >> l & 1 && votes[l]) ballot |= 1u << l;
  return ballot;
}
inline bool __any_sync(unsigned mask, bool vote, SimtSite at = SimtSite::current()) {
  return __ballot_sync(mask, vote, at) != 0;
}
inline bool __all_sync(unsigned mask, bool vote, SimtSite at = SimtSite::current()) {
  return __ballot_sync(mask, vote, at) == mask;
}
inline unsigned __match_any_sync(unsigned mask, int value, SimtSite at = SimtSite::current()) {
  const auto values = simt::exchange(mask, value, at);
  unsigned same = 0;
  for (unsigned l = 0; l < 32; ++l)
    if (mask >> l & 1 && values[l] == value) same |= 1u << l;
  return same;
}

// Threads take turns, so that plain operations are atomic. Integers alone: float atomics would make sums depend on who
// comes first.
inline int atomicAdd(int* at, int value) {
  const int before = *at;
  *at += value;
  return before;
}
inline unsigned atomicAdd(unsigned* at, unsigned value) {
  const unsigned before = *at;
  *at += value;
  return before;
}
inline int atomicMax(int* at, int value) {
  const int before = *at;
  if (value > before) *at = value;
  return before;
}
inline void __threadfence() {}

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __ffs(int x) { return x ? std::countr_zero(unsigned(x)) + 1 : 0; }
inline int __clz(int x) { return std::countl_zero(unsigned(x)); }
using std::isfinite;
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(std::uint64_t(a) * b >> 32); }
template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
void __stcs(T* p, T value) {
  *p = value;
}
template <class T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
constexpr T max(T a, T b) {
  return a < b ? b : a;
}
