#pragma once

#include "tensor/cuda/launch.cuh"

// What the threads of a block share: memory, sums in a fixed order, and accesses of 16 bytes.
namespace switchyard::cuda {

// A piece of the block's shared memory. On the SIMT machine an index outside it is an error that names the thread.
template <class T>
struct Shared {
  T* data;
  int size;

  __device__ T& operator[](int i) const {
#ifndef __CUDACC__
    if (i < 0 || i >= size) simt::fail("shared memory", i, size);
#endif
    return data[i];
  }
  __device__ Shared from(int begin) const { return {&(*this)[begin], size - begin}; }
};

template <class T>
constexpr std::size_t shared_bytes_of(std::int64_t count) {
  return (std::size_t(count) * sizeof(T) + 15) / 16 * 16;
}

// Carves shared memory in order, each piece 16-byte aligned; every thread carves alike. The launch gives as many bytes
// as shared_bytes_of<...>(counts...) says.
class SharedMemory {
 public:
  template <class T>
  __device__ Shared<T> take(int count) {
#ifdef __CUDACC__
    extern __shared__ __align__(128) unsigned char block_shared_memory[];
    unsigned char* const begin = block_shared_memory + taken_;
#else  // each piece has its own guards
    std::byte* const begin = simt::take_shared(pieces_++, taken_, std::size_t(count) * sizeof(T));
#endif
    taken_ += shared_bytes_of<T>(count);
    return {reinterpret_cast<T*>(begin), count};
  }

 private:
  std::size_t taken_ = 0;
#ifndef __CUDACC__
  int pieces_ = 0;
#endif
};

// Elements that travel together, as many as one 16-byte access takes unless said otherwise. The address must be a
// multiple of the pack's bytes, or of 16 for those that take several accesses.
template <class T, int N = 16 / int(sizeof(T))>
struct alignas(N * sizeof(T) < 16 ? N * sizeof(T) : 16) Pack {
  static constexpr int size = N;
  T v[N];
};
// A GPU refuses an address that is not aligned; a host lets many pass.
template <class P>
__device__ P* aligned_pack(P* p) {
#ifndef __CUDACC__
  simt::check_aligned(p, alignof(P));
#endif
  return p;
}
template <class T>
__device__ Pack<T> load_pack(const T* p) {
  return *aligned_pack(reinterpret_cast<const Pack<T>*>(p));
}
template <int N, class T>
__device__ Pack<T, N> load_pack(const T* p) {
  return *aligned_pack(reinterpret_cast<const Pack<T, N>*>(p));
}
template <class T, int N>
__device__ void store_pack(T* p, const Pack<T, N>& pack) {
  *aligned_pack(reinterpret_cast<Pack<T, N>*>(p)) = pack;
}
// Calls f with the number of T's that a kernel moves at once, as a constant: 16 bytes of them where rows of `width`
// that begin at these addresses allow it, else one.
template <class T, class F, class... P>
void with_pack(std::int64_t width, F&& f, const P*... rows) {
  constexpr int kPack = Pack<T>::size;
  if (width % kPack == 0 && (... && (reinterpret_cast<std::uintptr_t>(rows) % 16 == 0)))
    f(std::integral_constant<int, kPack>{});
  else
    f(std::integral_constant<int, 1>{});
}

// The lane's number in its warp and the warp's in its block, for blocks of any shape.
__device__ inline int thread_in_block() {
  return int(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z));
}
__device__ inline int lane_id() { return thread_in_block() % kWarpSize; }
__device__ inline int warp_id() { return thread_in_block() / kWarpSize; }

// Every lane gets the same bits: the butterfly adds the same pairs in every lane.
template <class T>
__device__ T warp_sum(T x) {
  for (int step = kWarpSize / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}
__device__ inline float warp_max(float x) {
  for (int step = kWarpSize / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
  return x;
}

// The sum over a block of at most 1024 threads, a whole number of warps, in every thread; `parts` holds 32 values.
template <class T>
__device__ T block_sum(std::type_identity_t<T> x, Shared<T> parts) {
  x = warp_sum(x);
  __syncthreads();  // parts may still be read from the call before
  if (lane_id() == 0) parts[warp_id()] = x;
  __syncthreads();
  const int warps = int(blockDim.x * blockDim.y * blockDim.z) / kWarpSize;
  return warp_sum(lane_id() < warps ? parts[lane_id()] : T(0));
}
__device__ inline float block_max(float x, Shared<float> parts) {
  x = warp_max(x);
  __syncthreads();
  if (lane_id() == 0) parts[warp_id()] = x;
  __syncthreads();
  const int warps = int(blockDim.x * blockDim.y * blockDim.z) / kWarpSize;
  return warp_max(lane_id() < warps ? parts[lane_id()] : -INFINITY);
}

}  // namespace switchyard::cuda
