#include "tensor/cuda/attention_bias.cuh"

#include "tensor/cuda/kernels.h"

// Forward in one pass over the keys with a running maximum (FlashAttention-2, Dao 2023): scores never leave the
// registers. Blocks with the most keys come first.
namespace switchyard::cuda {
namespace {

// bf16 heads of D = 64 or 128 on tensor cores. A block takes 128 queries, a warp 32 of them, which halves what a warp
// of 16 would read of keys and values. Registers hold the sums, the scores and, for D = 64, the queries. While one tile
// of keys and values is used, the next arrives; 64 KB at most, so that an A100 has room for two blocks, as registers
// do.
template <int D>
struct Forward {
  static constexpr int kWarps = 4, kRows = 2, kQueries = kWarps * kRows * 16, kKeys = D == 64 ? 64 : 32;
  static constexpr std::size_t kSharedBytes = shared_bytes_of<Bf16>((kQueries + 4 * kKeys) * D);
  using Queries = std::conditional_t<D == 64, LeftInRegisters<kRows, D>, LeftInTile<kRows, D>>;
};

// Scores to exp2(scale2 s - max) with the running maximum, in units of log2, while the sums so far are scaled down.
template <int R, int N, int C>
__device__ void softmax_step(Fragments<R, N>& s, Fragments<R, C>& o, float (&max)[R][2], float (&sum)[R][2],
                             float scale2) {
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float here = -INFINITY;
#pragma unroll
      for (int n = 0; n < N; ++n) here = fmaxf(here, fmaxf(s.v[r][n][2 * half], s.v[r][n][2 * half + 1]));
      const float before = max[r][half], now = fmaxf(before, row_max(here) * scale2);
      const float shrink = exp2_approx(before - now);
      float added = 0;
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          s.v[r][n][e] = exp2_approx(fmaf(s.v[r][n][e], scale2, -now));
          added += s.v[r][n][e];
        }
#pragma unroll
      for (int n = 0; n < C; ++n)
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) o.v[r][n][e] *= shrink;
      max[r][half] = now;
      sum[r][half] = sum[r][half] * shrink + added;
    }
}

template <int D, bool biased>
__global__ void __launch_bounds__(Forward<D>::kWarps* kWarpSize, 2)
    attention_kernel(Heads<Bf16> y, float* lse_BHT, Heads<const Bf16> qkv, float scale2, DistanceBias bias) {
  using Plan = Forward<D>;
  constexpr int kRows = Plan::kRows, kKeys = Plan::kKeys;
  const int seq = qkv.seq, batch = int(blockIdx.x) / qkv.n_heads, head = int(blockIdx.x) % qkv.n_heads;
  const int first = int(gridDim.y - 1 - blockIdx.y) * Plan::kQueries, row = warp_id() * kRows * 16;
  const int query = first + row, last = query + kRows * 16 - 1;  // this warp's
  const auto keys = qkv.key(batch, head / qkv.group()), values = qkv.value(batch, head / qkv.group());

  SharedMemory shared;
  const auto queries = Tile<D>::take(shared, Plan::kQueries);
  const auto key_tiles = Tile<D>::take(shared, 2 * kKeys), value_tiles = Tile<D>::take(shared, 2 * kKeys);
  AsyncCopies copies;
  const auto fetch = [&](int key, int to) {
    copy_rows(copies, key_tiles, to, keys, key, kKeys, seq);
    copy_rows(copies, value_tiles, to, values, key, kKeys, seq);
    copies.commit();
  };
  copy_rows(copies, queries, 0, qkv.query(batch, head), first, Plan::kQueries, seq);
  copies.commit();
  fetch(0, 0);
  copies.wait<1>();
  __syncthreads();
  const typename Plan::Queries left(queries, row);

  Fragments<kRows, D / 8> o;
  o.zero();
  float max[kRows][2], sum[kRows][2];
#pragma unroll
  for (int i = 0; i < 2 * kRows; ++i) max[i / 2][i % 2] = -INFINITY, sum[i / 2][i % 2] = 0;

  const int end = min(first + Plan::kQueries, seq);
  for (int key = 0, at = 0; key < end; key += kKeys, at ^= kKeys) {
    copies.wait();
    __syncthreads();  // this tile is here, and the one before is done with
    if (key + kKeys < end) fetch(key + kKeys, at ^ kKeys);
    if (key > last) continue;  // every key comes after every query of the warp
    Fragments<kRows, kKeys / 8> s;
    multiply_transposed(s, left, key_tiles, at);
    if constexpr (biased) add_bias<false>(s, bias, head, query - key, scale2);
    if (key + kKeys - 1 > query)
#pragma unroll
      for (int r = 0; r < kRows; ++r)
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
          for (int e = 0; e < 4; ++e)
            if (key + column_of(n, e) > query + row_of(r, e)) s.v[r][n][e] = -INFINITY;
    // The first keys are open to every query, so that each max is finite.
    softmax_step(s, o, max, sum, biased ? 1 : scale2);
    accumulate_product(o, s, value_tiles, at);
  }

  float inverse[kRows][2];
#pragma unroll
  for (int r = 0; r < kRows; ++r)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float total = row_sum(sum[r][half]);
      inverse[r][half] = 1 / total;
      const int i = query + row_of(r, 2 * half);
      if (lane_id() % 4 == 0 && i < seq)
        lse_BHT[std::int64_t{blockIdx.x} * seq + i] = (max[r][half] + log2f(total)) * kLn2;
    }
  store_rows<kRows, D>(y.query(batch, head), query, seq, o, inverse, queries, row);
}

template <int D>
void on_tensor_cores(Tensor& y, Tensor& lse_BHT, const Tensor& qkv, const Tensor& bias_HB, AttentionShape s,
                     RelativeBuckets relative) {
  using Plan = Forward<D>;
  Context& on = context(qkv.device());
  const Buckets buckets = upload_buckets(on, bias_HB, s, relative);
  const DistanceBias bias =
      spread_bias(on, "attention", on.scratch<float>(s.n_heads * buckets.distances), bias_HB, buckets, kLog2e);
  const dim3 grid(unsigned(s.batch * s.n_heads), unsigned(ceil_div(s.seq, std::int64_t{Plan::kQueries})));
  launch(on, "attention", bias_HB ? attention_kernel<D, true> : attention_kernel<D, false>, grid,
         Plan::kWarps * kWarpSize, Plan::kSharedBytes, Heads(ptr<Bf16>(y), s, s.n_heads * D), ptr<float>(lse_BHT),
         Heads(ptr<Bf16>(qkv), s, s.width()), kLog2e / std::sqrt(float(D)), bias);
}

}  // namespace

void attention(Tensor& y, Tensor& lse_BHT, const Tensor& qkv, const Tensor& bias_HB, AttentionShape shape,
               RelativeBuckets buckets) {
  const bool cores = qkv.dtype() == DType::bf16 && (shape.head_dim == 64 || shape.head_dim == 128);
  const auto forward = !cores ? plain::attention : shape.head_dim == 64 ? on_tensor_cores<64> : on_tensor_cores<128>;
  forward(y, lse_BHT, qkv, bias_HB, shape, buckets);
}

}  // namespace switchyard::cuda
