#include "tensor/cuda/attention_bias.cuh"
#include "tensor/cuda/kernels.h"

// Backward for bf16 heads of D = 64 or 128 on tensor cores. Scores are computed again, once for the gradients of keys
// and values and once for those of the queries, so that each sum belongs to one warp and has one order. Score tiles
// have the rows of the result: keys along the rows in the first kernel, queries in the second, which lets a tile of
// p or ds become the next product's left operand where it lies, in registers.
namespace switchyard::cuda {
namespace {

// A warp's rows are limited by registers: two results of 16 R x D in the first kernel. Blocks take 128 rows and read
// tiles of 64 of the other side, the next while one is used; scores exist for 32 of these at a time.
template <int D>
struct Backward {
  static constexpr int kR = D == 64 ? 2 : 1, kRows = 128, kWarps = kRows / (16 * kR), kThreads = kWarps * kWarpSize;
  static constexpr int kBlocks = D == 64 ? 2 : 1;  // on a multiprocessor
  static constexpr int kOthers = 64, kChunk = D == 64 ? 16 : 32;
  using Left = std::conditional_t<D == 64, LeftInRegisters<kR, D>, LeftInTile<kR, D>>;
  static constexpr std::size_t kTileBytes = shared_bytes_of<Bf16>((2 * kRows + 4 * kOthers) * D);
};

template <int D>
__global__ void statistics_kernel(RowStatistics* to, Heads<const Bf16> dy, Heads<const Bf16> y, const float* lse_BHT,
                                  std::int64_t rows, int padded) {
  constexpr int kLanes = D / 8, kAtOnce = kWarpSize / kLanes;  // 16 bytes a lane
  const int lane = lane_id() % kLanes;
  const std::int64_t warps = std::int64_t{gridDim.x} * (blockDim.x / kWarpSize);
  // Whole warps stay together for their sums: the last may have rows to spare.
  for (std::int64_t first = (std::int64_t{blockIdx.x} * (blockDim.x / kWarpSize) + warp_id()) * kAtOnce; first < rows;
       first += warps * kAtOnce) {
    const std::int64_t row = first + lane_id() / kLanes, of_head = row / padded;
    const int i = int(row % padded), head = int(of_head % y.n_heads), batch = int(of_head / y.n_heads);
    const bool there = row < rows && i < y.seq;
    float delta = 0;
    if (there) {
      const auto a = load_pack(dy.query(batch, head)[i] + 8 * lane), b = load_pack(y.query(batch, head)[i] + 8 * lane);
#pragma unroll
      for (int d = 0; d < 8; ++d) delta += float(a.v[d]) * float(b.v[d]);
    }
    for (int step = kLanes / 2; step > 0; step /= 2) delta += __shfl_xor_sync(kAllLanes, delta, step);
    if (lane == 0 && row < rows) to[row] = {there ? lse_BHT[of_head * y.seq + i] * kLog2e : INFINITY, delta};
  }
}

// Keys and values of one block, of all the queries that read them: one head after another, from the diagonal on. The
// first keys have the most queries and come first.
template <int D, bool biased>
__global__ void __launch_bounds__(Backward<D>::kThreads, Backward<D>::kBlocks)
    key_gradients_kernel(Heads<Bf16> dqkv, Heads<const Bf16> dy, Heads<const Bf16> qkv, const RowStatistics* statistics,
                         int padded, float scale, float scale2, DistanceBias bias) {
  using Plan = Backward<D>;
  constexpr int kR = Plan::kR, kQueries = Plan::kOthers, kChunk = Plan::kChunk;
  const int seq = qkv.seq, batch = int(blockIdx.x) / qkv.n_kv_heads, kv_head = int(blockIdx.x) % qkv.n_kv_heads;
  const int first = int(blockIdx.y) * Plan::kRows, row = warp_id() * kR * 16, key = first + row;

  SharedMemory shared;
  const auto keys = Tile<D>::take(shared, Plan::kRows), values = Tile<D>::take(shared, Plan::kRows);
  const auto queries = Tile<D>::take(shared, 2 * kQueries), dys = Tile<D>::take(shared, 2 * kQueries);
  const auto rows = shared.take<RowStatistics>(2 * kQueries);

  const int first_query = first / kQueries * kQueries, tiles = ceil_div(seq - first_query, kQueries);
  const int steps = qkv.group() * tiles;
  AsyncCopies copies;
  const auto fetch = [&](int step, int to) {
    const int head = kv_head * qkv.group() + step / tiles, query = first_query + step % tiles * kQueries;
    copy_rows(copies, queries, to, qkv.query(batch, head), query, kQueries, seq);
    copy_rows(copies, dys, to, dy.query(batch, head), query, kQueries, seq);
    constexpr int kPair = 16 / sizeof(RowStatistics);
    const RowStatistics* from = statistics + (std::int64_t{batch} * qkv.n_heads + head) * padded + query;
    if (const int i = int(threadIdx.x) * kPair; i < kQueries) copies.copy(&rows[to + i], from + i, true);
    copies.commit();
  };
  copy_rows(copies, keys, 0, qkv.key(batch, kv_head), first, Plan::kRows, seq);
  copy_rows(copies, values, 0, qkv.value(batch, kv_head), first, Plan::kRows, seq);
  fetch(0, 0);

  copies.wait();
  __syncthreads();
  const typename Plan::Left left_keys(keys, row);
  const LeftInTile<kR, D> left_values(values, row);
  Fragments<kR, D / 8> dk, dv;
  dk.zero();
  dv.zero();
  for (int step = 0, at = 0; step < steps; ++step, at ^= kQueries) {
    copies.wait();
    __syncthreads();  // this tile is here, and the one before is done with
    if (step + 1 < steps) fetch(step + 1, at ^ kQueries);
    for (int chunk = 0; chunk < kQueries; chunk += kChunk) {
      const int head = kv_head * qkv.group() + step / tiles, query = first_query + step % tiles * kQueries + chunk;
      if (query + kChunk - 1 < key) continue;  // every query comes before every key of the warp
      const bool diagonal = query < key + kR * 16 - 1;
      Fragments<kR, kChunk / 8> p, ds;
      multiply_transposed(p, left_keys, queries, at + chunk);
      multiply_transposed(ds, left_values, dys, at + chunk);
      if constexpr (biased) add_bias<true>(p, bias, head, query - key, scale2);
#pragma unroll
      for (int n = 0; n < kChunk / 8; ++n)
#pragma unroll
        for (int column = 0; column < 2; ++column) {
          const RowStatistics i = rows[at + chunk + column_of(n, column)];
#pragma unroll
          for (int r = 0; r < kR; ++r)
#pragma unroll
            for (int e = column; e < 4; e += 2) {
              float probability = exp2_approx(fmaf(p.v[r][n][e], biased ? 1 : scale2, -i.lse2));
              if (diagonal && query + column_of(n, e) < key + row_of(r, e)) probability = 0;
              p.v[r][n][e] = probability;
              ds.v[r][n][e] = probability * (ds.v[r][n][e] - i.delta);
            }
        }
      accumulate_product(dv, p, dys, at + chunk);
      accumulate_product(dk, ds, queries, at + chunk);
    }
  }
  float scales[kR][2], ones[kR][2];
#pragma unroll
  for (int i = 0; i < 2 * kR; ++i) scales[i / 2][i % 2] = scale, ones[i / 2][i % 2] = 1;
  store_rows<kR, D>(dqkv.key(batch, kv_head), key, seq, dk, scales, keys, row);
  store_rows<kR, D>(dqkv.value(batch, kv_head), key, seq, dv, ones, values, row);
}

// The queries of one block against the keys up to the diagonal.
template <int D, bool biased>
__global__ void __launch_bounds__(Backward<D>::kThreads, Backward<D>::kBlocks)
    query_gradients_kernel(Heads<Bf16> dqkv, Heads<const Bf16> dy, Heads<const Bf16> qkv,
                           const RowStatistics* statistics, int padded, float scale, float scale2, DistanceBias bias) {
  using Plan = Backward<D>;
  constexpr int kR = Plan::kR, kKeys = Plan::kOthers, kChunk = Plan::kChunk;
  const int seq = qkv.seq, batch = int(blockIdx.x) / qkv.n_heads, head = int(blockIdx.x) % qkv.n_heads;
  const int first = int(gridDim.y - 1 - blockIdx.y) * Plan::kRows, row = warp_id() * kR * 16, query = first + row;
  const auto keys = qkv.key(batch, head / qkv.group()), values = qkv.value(batch, head / qkv.group());

  SharedMemory shared;
  const auto queries = Tile<D>::take(shared, Plan::kRows), dys = Tile<D>::take(shared, Plan::kRows);
  const auto key_tiles = Tile<D>::take(shared, 2 * kKeys), value_tiles = Tile<D>::take(shared, 2 * kKeys);
  AsyncCopies copies;
  const auto fetch = [&](int key, int to) {
    copy_rows(copies, key_tiles, to, keys, key, kKeys, seq);
    copy_rows(copies, value_tiles, to, values, key, kKeys, seq);
    copies.commit();
  };
  copy_rows(copies, queries, 0, qkv.query(batch, head), first, Plan::kRows, seq);
  copy_rows(copies, dys, 0, dy.query(batch, head), first, Plan::kRows, seq);
  copies.commit();
  fetch(0, 0);

  RowStatistics rows[kR][2];
#pragma unroll
  for (int r = 0; r < kR; ++r)
#pragma unroll
    for (int half = 0; half < 2; ++half)
      rows[r][half] = query + row_of(r, 2 * half) < padded
                          ? statistics[std::int64_t{blockIdx.x} * padded + query + row_of(r, 2 * half)]
                          : RowStatistics{INFINITY, 0};
  copies.wait<1>();
  __syncthreads();
  const LeftInRegisters<kR, D> left_queries(queries, row), left_dys(dys, row);

  Fragments<kR, D / 8> dq;
  dq.zero();
  const int end = min(first + Plan::kRows, seq);
  for (int tile = 0, at = 0; tile < end; tile += kKeys, at ^= kKeys) {
    copies.wait();
    __syncthreads();  // this tile is here, and the one before is done with
    if (tile + kKeys < end) fetch(tile + kKeys, at ^ kKeys);
    for (int chunk = 0; chunk < kKeys; chunk += kChunk) {
      const int key = tile + chunk;
      if (key > query + kR * 16 - 1) break;  // every key comes after every query of the warp
      const bool diagonal = key + kChunk - 1 > query;
      Fragments<kR, kChunk / 8> s, ds;
      multiply_transposed(s, left_queries, key_tiles, at + chunk);
      multiply_transposed(ds, left_dys, value_tiles, at + chunk);
      if constexpr (biased) add_bias<false>(s, bias, head, query - key, scale2);
#pragma unroll
      for (int r = 0; r < kR; ++r)
#pragma unroll
        for (int n = 0; n < kChunk / 8; ++n)
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            float probability = exp2_approx(fmaf(s.v[r][n][e], biased ? 1 : scale2, -rows[r][e / 2].lse2));
            if (diagonal && key + column_of(n, e) > query + row_of(r, e)) probability = 0;
            ds.v[r][n][e] = probability * (ds.v[r][n][e] - rows[r][e / 2].delta);
          }
      accumulate_product(dq, ds, key_tiles, at + chunk);
    }
  }
  float scales[kR][2];
#pragma unroll
  for (int i = 0; i < 2 * kR; ++i) scales[i / 2][i % 2] = scale;
  store_rows<kR, D>(dqkv.query(batch, head), query, seq, dq, scales, queries, row);
}

template <int D>
void on_tensor_cores(Tensor& dqkv, Tensor& dbias_HB, const Tensor& dy, const Tensor& qkv, const Tensor& bias_HB,
                     const Tensor& y, const Tensor& lse_BHT, AttentionShape s, RelativeBuckets relative) {
  using Plan = Backward<D>;
  Context& on = context(qkv.device());
  const char* const name = "attention_backward";
  const Heads to(ptr<Bf16>(dqkv), s, s.width());
  const Heads dys(ptr<Bf16>(dy), s, s.n_heads * D), ys(ptr<Bf16>(y), s, s.n_heads * D);
  const Heads from(ptr<Bf16>(qkv), s, s.width());
  const float scale = 1 / std::sqrt(float(D)), scale2 = kLog2e * scale;

  const std::int64_t padded = ceil_div(s.seq, std::int64_t{Plan::kOthers}) * Plan::kOthers;
  const std::int64_t rows = s.batch * s.n_heads * padded;
  const Buckets buckets = upload_buckets(on, bias_HB, s, relative);
  const std::int64_t spread = s.n_heads * buckets.distances, parts = bias_blocks(s) * s.n_heads * buckets.count;
  auto* const memory = on.scratch<float>(2 * rows + spread + parts);
  auto* const statistics = reinterpret_cast<RowStatistics*>(memory);
  const DistanceBias bias = spread_bias(on, name, memory + 2 * rows, bias_HB, buckets, kLog2e);
  constexpr int kThreads = 256;
  launch(on, name, statistics_kernel<D>, grid_for(on, rows, kThreads / (D / 8)), kThreads, 0, statistics, dys, ys,
         ptr<float>(lse_BHT), rows, padded);

  const auto blocks = unsigned(ceil_div(s.seq, std::int64_t{Plan::kRows}));
  constexpr std::size_t kKeyBytes = Plan::kTileBytes + shared_bytes_of<RowStatistics>(2 * Plan::kOthers);
  launch(on, name, bias_HB ? key_gradients_kernel<D, true> : key_gradients_kernel<D, false>,
         dim3(unsigned(s.batch * s.n_kv_heads), blocks), Plan::kThreads, kKeyBytes, to, dys, from, statistics, padded,
         scale, scale2, bias);
  launch(on, name, bias_HB ? query_gradients_kernel<D, true> : query_gradients_kernel<D, false>,
         dim3(unsigned(s.batch * s.n_heads), blocks), Plan::kThreads, Plan::kTileBytes, to, dys, from, statistics,
         padded, scale, scale2, bias);
  bias_gradient(on, name, dbias_HB, memory + 2 * rows + spread, dys, from, statistics, int(padded), s, bias, buckets);
}

}  // namespace

void attention_backward(Tensor& dqkv, Tensor& dbias_HB, const Tensor& dy, const Tensor& qkv, const Tensor& bias_HB,
                        const Tensor& y, const Tensor& lse_BHT, AttentionShape shape, RelativeBuckets buckets) {
  const bool cores = qkv.dtype() == DType::bf16 && (shape.head_dim == 64 || shape.head_dim == 128);
  const auto backward = !cores                 ? plain::attention_backward
                        : shape.head_dim == 64 ? on_tensor_cores<64>
                                               : on_tensor_cores<128>;
  backward(dqkv, dbias_HB, dy, qkv, bias_HB, y, lse_BHT, shape, buckets);
}

}  // namespace switchyard::cuda
