#pragma once

#include "tensor/cuda/mma.cuh"
#include "tensor/kernels.h"

// What the attention kernels share: where heads lie in memory, tiles of them in shared memory, and a warp's products of
// tiles. S scores, P probabilities, all sums f32.
//   s_ij = q_i k_j / sqrt(D)   p_ij = exp(s_ij - lse_i) for j <= i   y_i = sum_j p_ij v_j
//   dv_j = sum_i p_ij dy_i     ds_ij = p_ij (dy_i v_j - dy_i y_i)    dq_i = sum_j ds_ij k_j / sqrt(D)   dk_j likewise
namespace switchyard::cuda {

constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

// The rows of one head in one sequence.
template <class T>
struct HeadRows {
  T* data;
  std::int64_t pitch;

  __device__ T* operator[](int row) const { return data + row * pitch; }
};

// Rows of `width` elements that hold heads side by side: fused rows, or those of y with queries alone.
template <class T>
struct Heads {
  T* rows;
  std::int64_t width;
  int seq, n_heads, n_kv_heads, head_dim;

  Heads(T* rows, AttentionShape s, std::int64_t width)
      : rows(rows),
        width(width),
        seq(int(s.seq)),
        n_heads(int(s.n_heads)),
        n_kv_heads(int(s.n_kv_heads)),
        head_dim(int(s.head_dim)) {}
  __device__ HeadRows<T> query(int batch, int head) const {
    return {rows + std::int64_t{batch} * seq * width + head * head_dim, width};
  }
  __device__ HeadRows<T> key(int batch, int kv_head) const { return query(batch, n_heads + kv_head); }
  __device__ HeadRows<T> value(int batch, int kv_head) const { return query(batch, n_heads + n_kv_heads + kv_head); }
  __device__ int group() const { return n_heads / n_kv_heads; }  // queries that share a key
};

// Rows of D in shared memory. The 16-byte chunks of a row are permuted by the row's last three bits, so that eight rows
// of one chunk, and eight chunks of one row, lie in different banks.
template <int D>
struct Tile {
  static_assert(D % 64 == 0);
  static constexpr int kChunks = D / 8;
  Shared<Bf16> data;

  __device__ static Tile take(SharedMemory& shared, int rows) { return {shared.take<Bf16>(rows * D)}; }
  __device__ Bf16* at(int row, int chunk) const { return &data[row * D + (chunk ^ (row & 7)) * 8]; }
};

// All threads of the block begin to copy `rows` rows of a head from `first` on into those of the tile from `row` on;
// the head's rows from seq on count as zeros.
template <int D>
__device__ void copy_rows(AsyncCopies& copies, Tile<D> to, int row, HeadRows<const Bf16> from, int first, int rows,
                          int seq) {
  const int thread = int(threadIdx.x), chunk = thread % Tile<D>::kChunks;
  for (int i = thread / Tile<D>::kChunks; i < rows; i += int(blockDim.x) / Tile<D>::kChunks) {
    const bool there = first + i < seq;
    copies.copy(to.at(row + i, chunk), from[there ? first + i : 0] + 8 * chunk, there);
  }
}

// The 16x16 left operand: rows from `row`, the columns of the k-th 16.
template <int D>
__device__ void load_left(unsigned (&to)[4], Tile<D> tile, int row, int k) {
  const int lane = lane_id();
  load_matrices(to, tile.at(row + lane % 16, 2 * k + lane / 16));
}

// R times 16 rows of a tile as a left operand, read again for each product or held in registers.
template <int R, int D>
struct LeftInTile {
  Tile<D> tile;
  int row;

  __device__ LeftInTile(Tile<D> tile, int row) : tile(tile), row(row) {}
  __device__ void get(unsigned (&to)[4], int r, int k) const { load_left(to, tile, row + 16 * r, k); }
};
template <int R, int D>
struct LeftInRegisters {
  unsigned held[R][D / 16][4];

  __device__ LeftInRegisters(Tile<D> tile, int row) {
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int k = 0; k < D / 16; ++k) load_left(held[r][k], tile, row + 16 * r, k);
  }
  __device__ void get(unsigned (&to)[4], int r, int k) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) to[i] = held[r][k][i];
  }
};

// A warp's part of a matrix: R times 16 rows, N times 8 columns. Element e of a fragment stands at (row_of(r, e),
// column_of(n, e)).
template <int R, int N>
struct Fragments {
  float v[R][N][4];

  __device__ void zero() {
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) v[r][n][e] = 0;
  }
};
__device__ inline int row_of(int r, int e) { return 16 * r + lane_id() / 4 + e / 2 * 8; }
__device__ inline int column_of(int n, int e) { return 8 * n + lane_id() % 4 * 2 + e % 2; }

// s = a b^T, with the rows of b from `row`.
template <int R, int N, int D, class Left>
__device__ void multiply_transposed(Fragments<R, N>& s, const Left& a, Tile<D> b, int row) {
  s.zero();
  const int lane = lane_id();
#pragma unroll
  for (int k = 0; k < D / 16; ++k) {
    unsigned left[R][4];
#pragma unroll
    for (int r = 0; r < R; ++r) a.get(left[r], r, k);
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      unsigned right[4];
      load_matrices(right, b.at(row + 8 * n + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2));
#pragma unroll
      for (int r = 0; r < R; ++r) {
        mma(s.v[r][n], left[r], right[0], right[1]);
        mma(s.v[r][n + 1], left[r], right[2], right[3]);
      }
    }
  }
}

// o += p b, with p rounded to bf16 and the 8 N rows of b from `row`.
template <int R, int N, int D>
__device__ void accumulate_product(Fragments<R, D / 8>& o, const Fragments<R, N>& p, Tile<D> b, int row) {
  const int lane = lane_id();
#pragma unroll
  for (int k = 0; k < N; k += 2) {
    unsigned left[R][4];
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        left[r][i] = pack_bf16(p.v[r][k + i / 2][i % 2 * 2], p.v[r][k + i / 2][i % 2 * 2 + 1]);
#pragma unroll
    for (int n = 0; n < D / 8; n += 2) {
      unsigned right[4];
      load_matrices_transposed(right, b.at(row + 8 * k + lane % 16, n + lane / 16));
#pragma unroll
      for (int r = 0; r < R; ++r) {
        mma(o.v[r][n], left[r], right[0], right[1]);
        mma(o.v[r][n + 1], left[r], right[2], right[3]);
      }
    }
  }
}

// Writes a warp's rows, each times factor[r][half], to the rows from `first` on of a head that has `seq`. They go
// through the rows from `row` on of a tile, which no other warp reads, so that they leave 16 bytes at a time.
template <int R, int D>
__device__ void store_rows(HeadRows<Bf16> to, int first, int seq, const Fragments<R, D / 8>& o,
                           const float (&factor)[R][2], Tile<D> tile, int row) {
  __syncwarp();
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int n = 0; n < D / 8; ++n)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const unsigned pair =
            pack_bf16(o.v[r][n][2 * half] * factor[r][half], o.v[r][n][2 * half + 1] * factor[r][half]);
        memcpy(tile.at(row + row_of(r, 2 * half), n) + lane_id() % 4 * 2, &pair, sizeof pair);
      }
  __syncwarp();
  const int chunk = lane_id() % Tile<D>::kChunks;
  for (int i = lane_id() / Tile<D>::kChunks; i < 16 * R; i += kWarpSize / Tile<D>::kChunks)
    if (first + i < seq) store_pack(to[first + i] + 8 * chunk, load_pack(tile.at(row + i, chunk)));
}

// The sum or maximum over the four lanes that share a row of fragments.
__device__ inline float row_sum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}
__device__ inline float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}

// attention_plain.cu: heads of any width up to 256, f32 or bf16, on the ordinary cores.
namespace plain {
void attention(Tensor& y, Tensor& lse_BHT, const Tensor& qkv, const Tensor& bias_HB, AttentionShape shape,
               RelativeBuckets buckets);
void attention_backward(Tensor& dqkv, Tensor& dbias_HB, const Tensor& dy, const Tensor& qkv, const Tensor& bias_HB,
                        const Tensor& y, const Tensor& lse_BHT, AttentionShape shape, RelativeBuckets buckets);
}  // namespace plain

}  // namespace switchyard::cuda
