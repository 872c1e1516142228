#pragma once

#include "tensor/cuda/block.cuh"

// Rows of probabilities are as wide as there are experts, often fewer than a warp has lanes. `width` lanes, a power of
// two, share a token; the tokens of a warp lie side by side, so that its accesses do too.
namespace switchyard::cuda {

constexpr int kThreads = 256;  // of a block

inline int lanes_for(std::int64_t experts) {
  int width = 1;
  while (width < kWarpSize && width < experts) width *= 2;
  return width;
}
inline unsigned grid_for_tokens(const Context& on, std::int64_t tokens, int width) {
  return grid_for(on, tokens, kThreads / width);
}

// Calls f(token, lane among the token's, experts), in step for all lanes of a warp so that they may exchange: those
// that have no token any more come with 0 experts.
template <class F>
__device__ void for_each_token(std::int64_t tokens, int experts, int width, F f) {
  const int thread = int(threadIdx.x), at_once = kThreads / width;
  for (std::int64_t begin = std::int64_t{blockIdx.x} * at_once; begin < tokens;
       begin += std::int64_t{gridDim.x} * at_once) {
    const std::int64_t t = begin + thread / width;
    f(t, thread % width, t < tokens ? experts : 0);
  }
}

__device__ inline float lanes_sum(float x, int width) {
  for (int step = width / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}
template <class T>
__device__ T lanes_max(T x, int width) {
  for (int step = width / 2; step > 0; step /= 2) {
    const T other = __shfl_xor_sync(kAllLanes, x, step);
    x = other > x ? other : x;
  }
  return x;
}

// A number that is larger for a larger x, and for a lower index among equals; NaN stands below everything.
__device__ inline unsigned long long rank_of(float x, int index) {
  const unsigned bits = __float_as_uint(x + 0.0f);  // -0 is 0
  const unsigned ordered = x != x ? 0 : bits >> 31 ? ~bits : bits | 0x80000000u;
  return static_cast<unsigned long long>(ordered) << 32 | (0xffffffffu - unsigned(index));
}
__device__ inline int index_of(unsigned long long rank) { return int(0xffffffffu - unsigned(rank)); }

}  // namespace switchyard::cuda
