#pragma once

#include "tensor/cuda/attention.cuh"

// What attention adds to scores by the distance from query to key, and the sums of score gradients by bucket.
//   s_ij = q_i k_j / sqrt(D) + b[bucket(i - j)]      db[n] = sum of ds_ij over the pairs at distances of bucket n
namespace switchyard::cuda {

// The least distance of each bucket, on the GPU, and how many distances differ: the last of them stands for all beyond.
struct Buckets {
  const int* firsts = nullptr;
  int count = 0, distances = 0;
};

// What the scores of heads get by distance; null for nothing.
struct DistanceBias {
  const float* values_HD = nullptr;
  int distances = 0;

  __device__ float at(int head, int distance) const {
    return values_HD[head * distances + max(0, min(distance, distances - 1))];
  }
};

// s = scale s + bias. Element (row, column) is `distance` + row - column apart, or + column - row where keys lie along
// the rows. Sixteen rows beyond the last distance, as most in a long sequence are, get one number.
template <bool keys_along_rows, int R, int N>
__device__ void add_bias(Fragments<R, N>& s, DistanceBias bias, int head, int distance, float scale) {
  constexpr int sign = keys_along_rows ? -1 : 1;
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const auto add = [&s, r, scale](auto bias_of) {
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e)
          s.v[r][n][e] = fmaf(s.v[r][n][e], scale, bias_of(sign * (row_of(r, e) - column_of(n, e))));
    };
    const int nearest = distance + (keys_along_rows ? -(16 * r + 15) : 16 * r - (8 * N - 1));
    if (nearest >= bias.distances - 1) {
      const float far = bias.at(head, nearest);
      add([far](int) { return far; });
    } else {
      add([&bias, head, distance](int apart) { return bias.at(head, distance + apart); });
    }
  }
}

// Adds a square tile of ds to the sums of the buckets; its elements are 0 where the query comes before the key.
// Element (row, column) is `distance` + row - column apart. All threads of the block call, after a barrier.
template <int kTile>
__device__ void add_to_buckets(Shared<float> sums, Shared<float> diagonals, Shared<float> ds, int pitch, int distance,
                               Buckets buckets) {
  constexpr int kDiagonals = 2 * kTile - 1;
  const int thread = thread_in_block(), threads = int(blockDim.x * blockDim.y);
  for (int i = thread; i < kDiagonals; i += threads) {
    const int apart = i - (kTile - 1);  // row - column
    float sum = 0;
    for (int row = max(apart, 0); row < kTile + min(apart, 0); ++row) sum += ds[row * pitch + row - apart];
    diagonals[i] = sum;
  }
  __syncthreads();
  const int least = distance - (kTile - 1), end = least + kDiagonals;
  for (int b = thread; b < buckets.count; b += threads) {
    const int next = b + 1 < buckets.count ? min(buckets.firsts[b + 1], end) : end;
    float sum = sums[b];
    for (int i = max(buckets.firsts[b], least); i < next; ++i) sum += diagonals[i - least];
    sums[b] = sum;
  }
}

// lse in units of log2, so that p = exp2(s - lse), and delta_i = dy_i y_i. Padded to whole tiles with queries whose p
// is 0 everywhere.
struct alignas(8) RowStatistics {
  float lse2, delta;
};

// The host's side, attention_bias.cu. Without a bias: no buckets, a null, and nothing done.
Buckets upload_buckets(Context& on, const Tensor& bias_HB, AttentionShape shape, RelativeBuckets buckets);
// bias_HB times `unit`, by distance, in memory of n_heads * distances floats.
DistanceBias spread_bias(Context& on, const char* name, float* memory, const Tensor& bias_HB, Buckets buckets,
                         float unit);
// db from the sums of so many blocks, each (n_heads, buckets).
void sum_bias_parts(Context& on, const char* name, Tensor& dbias_HB, const float* parts, std::int64_t blocks);
// All of it for bf16 heads of D = 64 or 128, with what backward has made: statistics of `padded` rows a head, and the
// bias in units of log2. `parts` has room for the sums of bias_blocks(shape) blocks.
std::int64_t bias_blocks(AttentionShape shape);
void bias_gradient(Context& on, const char* name, Tensor& dbias_HB, float* parts, Heads<const Bf16> dy,
                   Heads<const Bf16> qkv, const RowStatistics* statistics, int padded, AttentionShape shape,
                   DistanceBias bias, Buckets buckets);

}  // namespace switchyard::cuda
