#include "tensor/cuda/attention_bias.cuh"

// Attention without tensor cores, for f32 and for heads of other widths: square tiles in shared memory, all in f32. A
// block of kSide x kSide threads; thread (x, y) has rows y and y + kSide, and columns x, x + kSide, ... of a product.
namespace switchyard::cuda::plain {
namespace {

constexpr int kTile = 32, kSide = 16, kWidest = 256;
constexpr int kScorePitch = kTile + 1;
__host__ __device__ constexpr int pitch(int head_dim) { return head_dim | 1; }  // odd: a column lies in all banks

template <class T>
__device__ void load_tile(Shared<float> to, HeadRows<const T> from, int first, int seq, int head_dim) {
  for (int row = int(threadIdx.y); row < kTile; row += kSide)
    for (int d = int(threadIdx.x); d < head_dim; d += kSide)
      to[row * pitch(head_dim) + d] = first + row < seq ? float(from[first + row][d]) : 0;
}

// s[i][j] = a[row i] . b[row j]
__device__ inline void multiply_transposed(float (&s)[2][2], Shared<float> a, Shared<float> b, int head_dim) {
  const int x = int(threadIdx.x) * pitch(head_dim), y = int(threadIdx.y) * pitch(head_dim),
            step = kSide * pitch(head_dim);
#pragma unroll
  for (int i = 0; i < 4; ++i) s[i / 2][i % 2] = 0;
  for (int d = 0; d < head_dim; ++d) {
    const float left[2] = {a[y + d], a[y + step + d]}, right[2] = {b[x + d], b[x + step + d]};
#pragma unroll
    for (int i = 0; i < 4; ++i) s[i / 2][i % 2] += left[i / 2] * right[i % 2];
  }
}

// o += p b
template <int kColumns>
__device__ void accumulate_product(float (&o)[2][kColumns], Shared<float> p, Shared<float> b, int head_dim) {
  const int x = int(threadIdx.x), y = int(threadIdx.y);
  for (int k = 0; k < kTile; ++k) {
    const float left[2] = {p[y * kScorePitch + k], p[(y + kSide) * kScorePitch + k]};
#pragma unroll
    for (int c = 0; c < kColumns; ++c)
      if (x + c * kSide < head_dim) {
        const float right = b[k * pitch(head_dim) + x + c * kSide];
        o[0][c] += left[0] * right;
        o[1][c] += left[1] * right;
      }
  }
}

template <int kColumns, class T>
__device__ void store_rows(HeadRows<T> to, int first, int seq, const float (&o)[2][kColumns], const float (&factor)[2],
                           int head_dim) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = first + int(threadIdx.y) + i * kSide;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const int d = int(threadIdx.x) + c * kSide;
      if (row < seq && d < head_dim) to[row][d] = T(o[i][c] * factor[i]);
    }
  }
}

// Calls f with the number of columns a thread holds, as a constant.
template <class F>
void dispatch_columns(std::int64_t head_dim, const char* op, F&& f) {
  SY_CHECK(head_dim <= kWidest, op, ": heads of at most ", kWidest, " on a GPU, got ", head_dim);
  if (head_dim <= 64) return f(std::integral_constant<int, 64 / kSide>{});
  if (head_dim <= 128) return f(std::integral_constant<int, 128 / kSide>{});
  f(std::integral_constant<int, kWidest / kSide>{});
}

// Sums over the threads that share a row, of which there are kSide neighbours.
__device__ float row_total(float x) {
  for (int step = kSide / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}

__device__ float score(float s, DistanceBias bias, int head, int distance) {
  return bias.values_HD ? s + bias.at(head, distance) : s;
}

template <int kColumns, class T>
__global__ void __launch_bounds__(kSide* kSide, 1)
    attention_kernel(Heads<T> y, float* lse_BHT, Heads<const T> qkv, float scale, DistanceBias bias) {
  const int seq = qkv.seq, head_dim = qkv.head_dim;
  const int batch = int(blockIdx.x) / qkv.n_heads, head = int(blockIdx.x) % qkv.n_heads;
  const int first = int(gridDim.y - 1 - blockIdx.y) * kTile, x = int(threadIdx.x), row = int(threadIdx.y);
  const auto keys = qkv.key(batch, head / qkv.group()), values = qkv.value(batch, head / qkv.group());

  SharedMemory shared;
  const int tile = kTile * pitch(head_dim);
  const auto queries = shared.take<float>(tile), key_tile = shared.take<float>(tile),
             value_tile = shared.take<float>(tile), p = shared.take<float>(kTile * kScorePitch);
  load_tile<T>(queries, qkv.query(batch, head), first, seq, head_dim);

  float o[2][kColumns] = {}, max[2] = {-INFINITY, -INFINITY}, sum[2] = {};
  for (int key = 0; key < min(first + kTile, seq); key += kTile) {
    __syncthreads();  // the keys and values before are done with
    load_tile<T>(key_tile, keys, key, seq, head_dim);
    load_tile<T>(value_tile, values, key, seq, head_dim);
    __syncthreads();
    float s[2][2];
    multiply_transposed(s, queries, key_tile, head_dim);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int distance = first + row + i * kSide - (key + x + j * kSide);
        s[i][j] = distance < 0 ? -INFINITY : score(s[i][j] * scale, bias, head, distance);
      }
      float here = fmaxf(s[i][0], s[i][1]);
      for (int step = kSide / 2; step > 0; step /= 2) here = fmaxf(here, __shfl_xor_sync(kAllLanes, here, step));
      const float now = fmaxf(max[i], here), shrink = expf(max[i] - now);
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        s[i][j] = expf(s[i][j] - now);
        p[(row + i * kSide) * kScorePitch + x + j * kSide] = s[i][j];
      }
#pragma unroll
      for (int c = 0; c < kColumns; ++c) o[i][c] *= shrink;
      max[i] = now;
      sum[i] = sum[i] * shrink + (s[i][0] + s[i][1]);
    }
    __syncthreads();
    accumulate_product(o, p, value_tile, head_dim);
  }
  float inverse[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float total = row_total(sum[i]);
    inverse[i] = 1 / total;
    const int at = first + row + i * kSide;
    if (x == 0 && at < seq) lse_BHT[std::int64_t{blockIdx.x} * seq + at] = max[i] + logf(total);
  }
  store_rows(y.query(batch, head), first, seq, o, inverse, head_dim);
}

// delta_i = dy_i y_i, a warp a row of a head.
template <class T>
__global__ void delta_kernel(float* delta_BHT, Heads<const T> dy, Heads<const T> y, int batch) {
  const std::int64_t rows = std::int64_t{batch} * y.n_heads * y.seq, warps = blockDim.x / kWarpSize;
  for (std::int64_t r = blockIdx.x * warps + warp_id(); r < rows; r += gridDim.x * warps) {
    const int i = int(r % y.seq), head = int(r / y.seq % y.n_heads), b = int(r / y.seq / y.n_heads);
    const T *const a = dy.query(b, head)[i], *const c = y.query(b, head)[i];
    float sum = 0;
    for (int d = lane_id(); d < y.head_dim; d += kWarpSize) sum += float(a[d]) * float(c[d]);
    sum = warp_sum(sum);
    if (lane_id() == 0) delta_BHT[r] = sum;
  }
}

// Keys and values of one tile: the queries that read them one head after another, so that sums have one order.
template <int kColumns, class T>
__global__ void __launch_bounds__(kSide* kSide, 1)
    key_gradients_kernel(Heads<T> dqkv, Heads<const T> dy, Heads<const T> qkv, const float* lse_BHT,
                         const float* delta_BHT, float scale, DistanceBias bias) {
  const int seq = qkv.seq, head_dim = qkv.head_dim;
  const int batch = int(blockIdx.x) / qkv.n_kv_heads, kv_head = int(blockIdx.x) % qkv.n_kv_heads;
  const int first = int(blockIdx.y) * kTile, x = int(threadIdx.x), row = int(threadIdx.y);

  SharedMemory shared;
  const int tile = kTile * pitch(head_dim);
  const auto key_tile = shared.take<float>(tile), value_tile = shared.take<float>(tile),
             query_tile = shared.take<float>(tile), dy_tile = shared.take<float>(tile),
             p = shared.take<float>(kTile * kScorePitch), ds = shared.take<float>(kTile * kScorePitch);
  load_tile<T>(key_tile, qkv.key(batch, kv_head), first, seq, head_dim);
  load_tile<T>(value_tile, qkv.value(batch, kv_head), first, seq, head_dim);

  float dk[2][kColumns] = {}, dv[2][kColumns] = {};
  for (int head = kv_head * qkv.group(); head < (kv_head + 1) * qkv.group(); ++head)
    for (int query = first; query < seq; query += kTile) {
      __syncthreads();  // the queries before are done with
      load_tile<T>(query_tile, qkv.query(batch, head), query, seq, head_dim);
      load_tile<T>(dy_tile, dy.query(batch, head), query, seq, head_dim);
      __syncthreads();
      float s[2][2], dp[2][2];
      multiply_transposed(s, key_tile, query_tile, head_dim);
      multiply_transposed(dp, value_tile, dy_tile, head_dim);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int r = row + e / 2 * kSide, c = x + e % 2 * kSide, i = query + c;
        const std::int64_t at = (std::int64_t{batch} * qkv.n_heads + head) * seq + i;
        const bool open = first + r <= i && i < seq;
        const float probability =
            open ? expf(score(s[e / 2][e % 2] * scale, bias, head, i - first - r) - lse_BHT[at]) : 0;
        p[r * kScorePitch + c] = probability;
        ds[r * kScorePitch + c] = open ? probability * (dp[e / 2][e % 2] - delta_BHT[at]) : 0;
      }
      __syncthreads();
      accumulate_product(dv, p, dy_tile, head_dim);
      accumulate_product(dk, ds, query_tile, head_dim);
    }
  store_rows(dqkv.key(batch, kv_head), first, seq, dk, {scale, scale}, head_dim);
  store_rows(dqkv.value(batch, kv_head), first, seq, dv, {1, 1}, head_dim);
}

// And the sums of their ds by bucket.
template <int kColumns, class T>
__global__ void __launch_bounds__(kSide* kSide, 1)
    query_gradients_kernel(Heads<T> dqkv, float* bias_parts, Heads<const T> dy, Heads<const T> qkv,
                           const float* lse_BHT, const float* delta_BHT, float scale, DistanceBias bias,
                           Buckets buckets) {
  const int seq = qkv.seq, head_dim = qkv.head_dim;
  const int batch = int(blockIdx.x) / qkv.n_heads, head = int(blockIdx.x) % qkv.n_heads;
  const int first = int(gridDim.y - 1 - blockIdx.y) * kTile, x = int(threadIdx.x), row = int(threadIdx.y);
  const auto keys = qkv.key(batch, head / qkv.group()), values = qkv.value(batch, head / qkv.group());

  SharedMemory shared;
  const int tile = kTile * pitch(head_dim);
  const auto query_tile = shared.take<float>(tile), dy_tile = shared.take<float>(tile),
             key_tile = shared.take<float>(tile), value_tile = shared.take<float>(tile),
             ds = shared.take<float>(kTile * kScorePitch), diagonals = shared.take<float>(2 * kTile),
             sums = shared.take<float>(buckets.count);
  for (int b = thread_in_block(); b < buckets.count; b += kSide * kSide) sums[b] = 0;
  load_tile<T>(query_tile, qkv.query(batch, head), first, seq, head_dim);
  load_tile<T>(dy_tile, dy.query(batch, head), first, seq, head_dim);
  float lse[2] = {}, delta[2] = {};
#pragma unroll
  for (int i = 0; i < 2; ++i)
    if (const int query = first + row + i * kSide; query < seq) {
      lse[i] = lse_BHT[std::int64_t{blockIdx.x} * seq + query];
      delta[i] = delta_BHT[std::int64_t{blockIdx.x} * seq + query];
    }

  float dq[2][kColumns] = {};
  for (int key = 0; key < min(first + kTile, seq); key += kTile) {
    __syncthreads();  // the keys and values before are done with
    load_tile<T>(key_tile, keys, key, seq, head_dim);
    load_tile<T>(value_tile, values, key, seq, head_dim);
    __syncthreads();
    float s[2][2], dp[2][2];
    multiply_transposed(s, query_tile, key_tile, head_dim);
    multiply_transposed(dp, dy_tile, value_tile, head_dim);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int i = e / 2, r = row + i * kSide, c = x + e % 2 * kSide;
      const int distance = first + r - (key + c);
      ds[r * kScorePitch + c] =
          distance >= 0 ? expf(score(s[i][e % 2] * scale, bias, head, distance) - lse[i]) * (dp[i][e % 2] - delta[i])
                        : 0;
    }
    __syncthreads();
    accumulate_product(dq, ds, key_tile, head_dim);
    if (buckets.count > 0) add_to_buckets<kTile>(sums, diagonals, ds, kScorePitch, first - key, buckets);
  }
  store_rows(dqkv.query(batch, head), first, seq, dq, {scale, scale}, head_dim);
  float* const part =
      bias_parts + ((std::int64_t{batch} * gridDim.y + blockIdx.y) * qkv.n_heads + head) * buckets.count;
  for (int b = thread_in_block(); b < buckets.count; b += kSide * kSide) part[b] = sums[b];
}

std::size_t shared_bytes(std::int64_t head_dim, int tiles, int scores) {
  return std::size_t(tiles) * shared_bytes_of<float>(kTile * pitch(int(head_dim))) +
         std::size_t(scores) * shared_bytes_of<float>(kTile * kScorePitch);
}
unsigned tiles_of(std::int64_t seq) { return unsigned(ceil_div(seq, std::int64_t{kTile})); }

}  // namespace

void attention(Tensor& y, Tensor& lse_BHT, const Tensor& qkv, const Tensor& bias_HB, AttentionShape s,
               RelativeBuckets relative) {
  Context& on = context(qkv.device());
  const Buckets buckets = upload_buckets(on, bias_HB, s, relative);
  const DistanceBias bias =
      spread_bias(on, "attention", on.scratch<float>(s.n_heads * buckets.distances), bias_HB, buckets, 1);
  const dim3 grid(unsigned(s.batch * s.n_heads), tiles_of(s.seq)), block(kSide, kSide);
  dispatch_float(qkv.dtype(), "attention", [&](auto zero) {
    dispatch_columns(s.head_dim, "attention", [&](auto columns) {
      using T = decltype(zero);
      launch(on, "attention", attention_kernel<columns(), T>, grid, block, shared_bytes(s.head_dim, 3, 1),
             Heads(ptr<T>(y), s, s.n_heads * s.head_dim), ptr<float>(lse_BHT), Heads(ptr<T>(qkv), s, s.width()),
             1 / std::sqrt(float(s.head_dim)), bias);
    });
  });
}

void attention_backward(Tensor& dqkv, Tensor& dbias_HB, const Tensor& dy, const Tensor& qkv, const Tensor& bias_HB,
                        const Tensor& y, const Tensor& lse_BHT, AttentionShape s, RelativeBuckets relative) {
  Context& on = context(qkv.device());
  const float scale = 1 / std::sqrt(float(s.head_dim));
  const std::int64_t rows = s.tokens() * s.n_heads, y_width = s.n_heads * s.head_dim;
  const dim3 block(kSide, kSide);
  const char* const name = "attention_backward";
  const Buckets buckets = upload_buckets(on, bias_HB, s, relative);
  const std::int64_t spread = s.n_heads * buckets.distances, blocks = s.batch * tiles_of(s.seq);
  float* const delta_BHT = on.scratch<float>(rows + spread + blocks * s.n_heads * buckets.count);
  const DistanceBias bias = spread_bias(on, name, delta_BHT + rows, bias_HB, buckets, 1);
  float* const parts = delta_BHT + rows + spread;
  dispatch_float(qkv.dtype(), name, [&](auto zero) {
    using T = decltype(zero);
    const Heads to(ptr<T>(dqkv), s, s.width());
    const Heads dy_rows(ptr<T>(dy), s, y_width), y_rows(ptr<T>(y), s, y_width), from(ptr<T>(qkv), s, s.width());
    constexpr int kThreads = 256;
    launch(on, name, delta_kernel<T>, grid_for(on, rows, kThreads / kWarpSize), kThreads, 0, delta_BHT, dy_rows, y_rows,
           s.batch);
    dispatch_columns(s.head_dim, name, [&](auto columns) {
      launch(on, name, key_gradients_kernel<columns(), T>, dim3(unsigned(s.batch * s.n_kv_heads), tiles_of(s.seq)),
             block, shared_bytes(s.head_dim, 4, 2), to, dy_rows, from, ptr<float>(lse_BHT), delta_BHT, scale, bias);
      launch(on, name, query_gradients_kernel<columns(), T>, dim3(unsigned(s.batch * s.n_heads), tiles_of(s.seq)),
             block,
             shared_bytes(s.head_dim, 4, 1) + shared_bytes_of<float>(2 * kTile) + shared_bytes_of<float>(buckets.count),
             to, parts, dy_rows, from, ptr<float>(lse_BHT), delta_BHT, scale, bias, buckets);
    });
  });
  sum_bias_parts(on, name, dbias_HB, parts, blocks);
}

}  // namespace switchyard::cuda::plain
