#include "tensor/cuda/attention_bias.cuh"

#include <vector>

#include "tensor/cuda/row_blocks.cuh"

// A row of ds sums to 0: sum_j p_ij (dy_i v_j - dy_i y_i) = dy_i y_i - dy_i y_i. So the last bucket's gradient, of
// nearly all pairs in a long sequence, follows from the others', and only the band of nearer pairs is computed once
// more. The kernels of the other gradients stay as they are without a bias.
namespace switchyard::cuda {
namespace {

constexpr int kTile = 64, kPitch = kTile + 1, kWarps = kTile / 16, kThreads = kWarps * kWarpSize;

__global__ void spread_kernel(float* values_HD, const float* bias_HB, Buckets buckets, float unit) {
  const int d = int(blockIdx.x * blockDim.x + threadIdx.x), head = int(blockIdx.y);
  if (d >= buckets.distances) return;
  int bucket = 0;
  while (bucket + 1 < buckets.count && buckets.firsts[bucket + 1] <= d) ++bucket;
  values_HD[std::int64_t{head} * buckets.distances + d] = unit * bias_HB[head * buckets.count + bucket];
}

// The queries of one block against the keys that are nearer than the last bucket's.
template <int D>
__global__ void __launch_bounds__(kThreads, 2)
    gradient_kernel(float* parts, Heads<const Bf16> dy, Heads<const Bf16> qkv, const RowStatistics* statistics,
                    int padded, float scale2, DistanceBias bias, Buckets buckets) {
  const int seq = qkv.seq, batch = int(blockIdx.x) / qkv.n_heads, head = int(blockIdx.x) % qkv.n_heads;
  const int first = int(blockIdx.y) * kTile, row = warp_id() * 16, last = buckets.count - 1,
            beyond = buckets.firsts[last];
  const auto keys = qkv.key(batch, head / qkv.group()), values = qkv.value(batch, head / qkv.group());

  SharedMemory shared;
  const auto queries = Tile<D>::take(shared, kTile), dys = Tile<D>::take(shared, kTile);
  const auto key_tile = Tile<D>::take(shared, kTile), value_tile = Tile<D>::take(shared, kTile);
  const auto ds = shared.take<float>(kTile * kPitch), diagonals = shared.take<float>(2 * kTile),
             sums = shared.take<float>(buckets.count);
  for (int b = int(threadIdx.x); b < buckets.count; b += kThreads) sums[b] = 0;
  AsyncCopies copies;
  copy_rows(copies, queries, 0, qkv.query(batch, head), first, kTile, seq);
  copy_rows(copies, dys, 0, dy.query(batch, head), first, kTile, seq);
  RowStatistics rows[2];
#pragma unroll
  for (int half = 0; half < 2; ++half)
    rows[half] = statistics[std::int64_t{blockIdx.x} * padded + first + row + row_of(0, 2 * half)];

  for (int key = max(0, first - beyond + 1) / kTile * kTile; key <= first; key += kTile) {
    __syncthreads();  // the tile before is done with
    copy_rows(copies, key_tile, 0, keys, key, kTile, seq);
    copy_rows(copies, value_tile, 0, values, key, kTile, seq);
    copies.commit();
    copies.wait();
    __syncthreads();
    Fragments<1, kTile / 8> s, dp;
    multiply_transposed(s, LeftInTile<1, D>(queries, row), key_tile, 0);
    multiply_transposed(dp, LeftInTile<1, D>(dys, row), value_tile, 0);
    add_bias<false>(s, bias, head, first + row - key, scale2);
#pragma unroll
    for (int n = 0; n < kTile / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int r = row + row_of(0, e), column = column_of(n, e);
        const RowStatistics i = rows[e / 2];
        const bool open = key + column <= first + r;
        ds[r * kPitch + column] = open ? exp2_approx(s.v[0][n][e] - i.lse2) * (dp.v[0][n][e] - i.delta) : 0;
      }
    __syncthreads();
    add_to_buckets<kTile>(sums, diagonals, ds, kPitch, first - key, buckets);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    float others = 0;
    for (int b = 0; b < last; ++b) others += sums[b];
    sums[last] = min(first + kTile, seq) > beyond ? -others : 0;
  }
  __syncthreads();
  float* const to = parts + ((std::int64_t{batch} * gridDim.y + blockIdx.y) * qkv.n_heads + head) * buckets.count;
  for (int b = int(threadIdx.x); b < buckets.count; b += kThreads) to[b] = sums[b];
}

std::int64_t tiles_of(AttentionShape s) { return ceil_div(s.seq, std::int64_t{kTile}); }

}  // namespace

Buckets upload_buckets(Context& on, const Tensor& bias_HB, AttentionShape shape, RelativeBuckets buckets) {
  if (!bias_HB) return {};
  std::vector<int> firsts;
  for (std::int64_t b = 0; b < buckets.count; ++b) firsts.push_back(int(buckets.first(b)));
  return {.firsts = on.upload(std::span<const int>(firsts)),
          .count = int(buckets.count),
          .distances = std::min(int(shape.seq), firsts.back() + 1)};
}

DistanceBias spread_bias(Context& on, const char* name, float* memory, const Tensor& bias_HB, Buckets buckets,
                         float unit) {
  if (!bias_HB) return {};
  constexpr int kSpreaders = 128;
  const dim3 grid(unsigned(ceil_div(buckets.distances, kSpreaders)), unsigned(bias_HB.dim(0)));
  launch(on, name, spread_kernel, grid, kSpreaders, 0, memory, ptr<float>(bias_HB), buckets, unit);
  return {.values_HD = memory, .distances = buckets.distances};
}

void sum_bias_parts(Context& on, const char* name, Tensor& dbias_HB, const float* parts, std::int64_t blocks) {
  if (dbias_HB) sum_parts(on, name, ptr<float>(dbias_HB), parts, int(blocks), dbias_HB.numel(), dbias_HB.numel());
}

std::int64_t bias_blocks(AttentionShape s) { return s.batch * tiles_of(s); }

void bias_gradient(Context& on, const char* name, Tensor& dbias_HB, float* parts, Heads<const Bf16> dy,
                   Heads<const Bf16> qkv, const RowStatistics* statistics, int padded, AttentionShape s,
                   DistanceBias bias, Buckets buckets) {
  if (!dbias_HB) return;
  SY_CHECK(padded % kTile == 0, "statistics of ", padded, " rows for tiles of ", kTile);
  const dim3 grid(unsigned(s.batch * s.n_heads), unsigned(tiles_of(s)));
  const std::size_t bytes = shared_bytes_of<Bf16>(4 * kTile * s.head_dim) + shared_bytes_of<float>(kTile * kPitch) +
                            shared_bytes_of<float>(2 * kTile) + shared_bytes_of<float>(buckets.count);
  launch(on, name, s.head_dim == 64 ? gradient_kernel<64> : gradient_kernel<128>, grid, kThreads, bytes, parts, dy, qkv,
         statistics, padded, kLog2e / std::sqrt(float(s.head_dim)), bias, buckets);
  sum_bias_parts(on, name, dbias_HB, parts, bias_blocks(s));
}

}  // namespace switchyard::cuda
