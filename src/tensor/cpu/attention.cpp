#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/onednn.h"
#include "tensor/cpu/product.h"
#include "tensor/cpu/scratch.h"
#include "tensor/cpu/simd.h"

// Strips of queries against all keys up to the strip's end, or blocks of those. Scores, softmax and sums are f32;
// probabilities and their gradients take the rows' type before they are multiplied.
//   s_ij = q_i k_j / sqrt(D)   p_ij = exp(s_ij - lse_i) for j <= i   y_i = sum_j p_ij v_j
//   dv_j = sum_i p_ij dy_i     ds_ij = p_ij (dy_i v_j - dy_i y_i)    dq_i = sum_j ds_ij k_j / sqrt(D)   dk_j likewise
// With a bias s_ij gets b[bucket(i - j)] more, and db[n] is the sum of ds_ij over the pairs at distances of bucket n.
namespace switchyard::cpu {
namespace {

constexpr std::int64_t kStrip = 64;      // queries at once
constexpr std::int64_t kKeyBlock = 256;  // keys at once in backward

constexpr std::int64_t padded(std::int64_t n) { return panels(n) * kPanel; }

template <class T>
Rows<T> from_row(Rows<T> x, std::int64_t row) {
  return {x.data + row * x.pitch, x.pitch};
}

// The right operand (k, n) of a product: f32 in place, bf16 packed into `storage` elements of memory. from(k) is the
// operand without its first k rows (whole panels, not transposed), depth(k) how deep a product over k may be made.
template <class T>
struct Right;

template <>
struct Right<float> {
  Rows<const float> rows;
  Trans trans;

  static std::int64_t storage(std::int64_t, std::int64_t) { return 0; }
  static Right make(float*, Rows<const float> b, std::int64_t, std::int64_t, Trans trans) { return {b, trans}; }
  static std::int64_t depth(std::int64_t k) { return k; }
  Right from(std::int64_t k) const { return {from_row(rows, k), trans}; }
};

template <>
struct Right<bf16> {
  const bf16* packed;
  std::int64_t panel;

  static std::int64_t storage(std::int64_t k, std::int64_t n) { return packed_elements(k, n); }
  static Right make(bf16* memory, Rows<const bf16> b, std::int64_t k, std::int64_t n, Trans trans) {
    pack_right(memory, b, k, n, trans);
    return {memory, panels(k) * kBlockSize};
  }
  // Packed blocks are zero beyond the matrix, so a left operand that is so too may be read in place.
  static std::int64_t depth(std::int64_t k) { return padded(k); }
  Right from(std::int64_t k) const { return {packed + k / kPanel * kBlockSize, panel}; }
};

struct Size {
  std::int64_t m, n, k;
};

void product(Rows<float> c, Rows<const float> a, const Right<float>& b, Size size, Trans ta,
             Into into = Into::overwrite) {
  multiply_f32(c, a, b.rows, size.m, size.n, size.k, ta, b.trans, into);
}

void product(Rows<float> c, Rows<const bf16> a, const Right<bf16>& b, Size size, Trans ta,
             Into into = Into::overwrite) {
  multiply({.m = size.m,
            .n = size.n,
            .k = size.k,
            .c = {reinterpret_cast<std::byte*>(c.data), c.pitch},
            .a = a,
            .ta = ta,
            .b = b.packed,
            .b_panel = b.panel,
            .into = into});
}

// Where the heads of one sequence lie in fused rows.
template <class T>
struct Heads {
  T* sequence;
  AttentionShape shape;

  Heads(T* rows, AttentionShape s, std::int64_t batch) : sequence(rows + batch * s.seq * s.width()), shape(s) {}
  Rows<T> query(std::int64_t h) const { return {sequence + h * shape.head_dim, shape.width()}; }
  Rows<T> key(std::int64_t h) const { return query(shape.n_heads + h); }
  Rows<T> value(std::int64_t h) const { return query(shape.n_heads + shape.n_kv_heads + h); }
};

// f(bucket, begin, end) for the distances below seq.
template <class F>
void each_bucket(RelativeBuckets buckets, std::int64_t seq, F f) {
  for (std::int64_t n = 0; n < buckets.count; ++n)
    f(n, std::min(buckets.first(n), seq), n + 1 < buckets.count ? std::min(buckets.first(n + 1), seq) : seq);
}

// bias_HB by distance, (n_heads, seq), until the thread's next call; null where there is none.
const float* by_distance(const Tensor& bias_HB, AttentionShape s, RelativeBuckets buckets) {
  struct Spread;
  if (!bias_HB) return nullptr;
  float* to = scratch<Spread, float>(s.n_heads * s.seq);
  for (std::int64_t h = 0; h < s.n_heads; ++h)
    each_bucket(buckets, s.seq, [&](std::int64_t n, std::int64_t begin, std::int64_t end) {
      std::fill(to + h * s.seq + begin, to + h * s.seq + end, bias_HB.data<float>()[h * buckets.count + n]);
    });
  return to;
}

// p = exp(scale s - max) of the first `count` columns, zeros up to `width`; gives the maximum and the sum.
struct RowSum {
  float max, sum;
};
template <class T>
RowSum exp_row(T* p, const float* s, std::int64_t count, std::int64_t width, float scale) {
  float max = -std::numeric_limits<float>::infinity(), sum = 0;
#pragma omp simd reduction(max : max)
  for (std::int64_t j = 0; j < count; ++j) max = std::max(max, scale * s[j]);
#pragma omp simd reduction(+ : sum)
  for (std::int64_t j = 0; j < count; ++j) {
    const float e = exp_approx(scale * s[j] - max);
    sum += e;
    p[j] = from_float<T>(e);
  }
  std::fill(p + count, p + width, T(0.0f));
  return {max, sum};
}

template <class T>
void forward(Tensor& y, Tensor& lse_BHT, const Tensor& qkv, const float* bias_HD, AttentionShape s) {
  struct Packed;
  struct Scores;
  struct Probabilities;
  struct Output;
  const std::int64_t D = s.head_dim, group = s.n_heads / s.n_kv_heads, strips = (s.seq + kStrip - 1) / kStrip;
  const float scale = 1.0f / std::sqrt(static_cast<float>(D));
  const T* rows = qkv.data<T>();

  const std::int64_t kv_heads = s.batch * s.n_kv_heads;
  const std::int64_t key_size = Right<T>::storage(D, s.seq), value_size = Right<T>::storage(s.seq, D);
  T* packed = scratch<Packed, T>(kv_heads * (key_size + value_size));
  std::vector<Right<T>> keys(static_cast<std::size_t>(kv_heads)), values(keys.size());
#pragma omp parallel for schedule(static)
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const auto at = static_cast<std::int64_t>(i), h = at % s.n_kv_heads;
    const Heads<const T> heads(rows, s, at / s.n_kv_heads);
    T* memory = packed + at * (key_size + value_size);
    keys[i] = Right<T>::make(memory, heads.key(h), D, s.seq, Trans::yes);
    values[i] = Right<T>::make(memory + key_size, heads.value(h), s.seq, D, Trans::no);
  }

#pragma omp parallel for schedule(dynamic, 1)
  for (std::int64_t task = 0; task < strips * s.batch * s.n_heads; ++task) {
    // The longest strips first.
    const std::int64_t strip = strips - 1 - task / (s.batch * s.n_heads), head = task % (s.batch * s.n_heads);
    const std::int64_t b = head / s.n_heads, h = head % s.n_heads;
    const std::int64_t first = strip * kStrip, end = std::min(first + kStrip, s.seq), m = end - first;
    const std::int64_t width = padded(end);
    const auto kv = static_cast<std::size_t>(b * s.n_kv_heads + h / group);

    float* scores = scratch<Scores, float>(kStrip * width);
    T* p = scratch<Probabilities, T>(kStrip * width);
    float* out = scratch<Output, float>(kStrip * D);
    product({scores, width}, from_row(Heads<const T>(rows, s, b).query(h), first), keys[kv], {m, end, D}, Trans::no);
    RowSum sums[kStrip];
    for (std::int64_t i = 0; i < m; ++i) {
      float* row = scores + i * width;
      const std::int64_t query = first + i;
      if (bias_HD) {
        const float* bias = bias_HD + h * s.seq + query;
#pragma omp simd
        for (std::int64_t j = 0; j <= query; ++j) row[j] = scale * row[j] + bias[-j];
      }
      sums[i] = exp_row(p + i * width, row, query + 1, width, bias_HD ? 1.0f : scale);
    }
    product({out, D}, {p, width}, values[kv], {m, D, Right<T>::depth(end)}, Trans::no);

    T* to = y.data<T>() + ((b * s.seq + first) * s.n_heads + h) * D;
    float* lse = lse_BHT.data<float>() + head * s.seq + first;
    for (std::int64_t i = 0; i < m; ++i, to += s.n_heads * D) {
      const float inverse = 1.0f / sums[i].sum;
#pragma omp simd
      for (std::int64_t d = 0; d < D; ++d) to[d] = from_float<T>(out[i * D + d] * inverse);
      lse[i] = sums[i].max + std::log(sums[i].sum);
    }
  }
}

// delta_i = dy_i y_i for m rows.
template <class T>
void row_dots(float* delta, Rows<const T> dy, Rows<const T> y, std::int64_t m, std::int64_t D) {
  for (std::int64_t i = 0; i < m; ++i) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t d = 0; d < D; ++d) sum += to_float(dy.data[i * dy.pitch + d]) * to_float(y.data[i * y.pitch + d]);
    delta[i] = sum;
  }
}

// A block of keys against a strip of queries, keys along the rows: p = exp(scale s - lse) and
// ds = scale p (dp - delta) where the query is not before the key, zeros elsewhere. `distance` is that of the first
// query from the first key; a bias by distance is added to the scores, and each ds to the sum of its distance.
template <bool biased, class T>
void score_gradients(T* p, T* ds, const float* s, const float* dp, const float* lse, const float* delta,
                     std::int64_t keys, std::int64_t distance, std::int64_t m, float scale, const float* bias,
                     float* sums) {
  for (std::int64_t j = 0; j < keys; ++j, --distance, p += kStrip, ds += kStrip, s += kStrip, dp += kStrip) {
    const std::int64_t begin = std::clamp<std::int64_t>(-distance, 0, m);
    std::fill(p, p + begin, T(0.0f));
    std::fill(ds, ds + begin, T(0.0f));
#pragma omp simd
    for (std::int64_t i = begin; i < m; ++i) {
      float score = scale * s[i];
      if constexpr (biased) score += bias[distance + i];
      const float e = exp_approx(score - lse[i]), gradient = scale * e * (dp[i] - delta[i]);
      p[i] = from_float<T>(e);
      ds[i] = from_float<T>(gradient);
      if constexpr (biased) sums[distance + i] += gradient;
    }
    std::fill(p + m, p + kStrip, T(0.0f));
    std::fill(ds + m, ds + kStrip, T(0.0f));
  }
}

template <class T>
void store_rows(Rows<T> to, const float* from, std::int64_t m, std::int64_t D) {
  for (std::int64_t i = 0; i < m; ++i) convert_row(to.data + i * to.pitch, from + i * D, D);
}

// A bias by distance, and the sums of its gradients in each sequence, by bucket; nulls without one.
struct Bias {
  const float* by_distance_HD;
  float* sums_BHN;
  RelativeBuckets buckets;
};

// All of one key and value head: its own gradients and those of the queries that read it, head after head and strip
// after strip, so that every sum has one order.
template <class T>
void backward_head(Tensor& dqkv, const Tensor& dy, const Tensor& qkv, const Tensor& y, const Tensor& lse_BHT,
                   AttentionShape s, const Bias& bias, std::int64_t b, std::int64_t kv) {
  struct Packed;
  struct Sums;
  struct Block;
  struct Operands;
  struct Distances;
  const bool biased = bias.by_distance_HD;
  const std::int64_t D = s.head_dim, group = s.n_heads / s.n_kv_heads, y_pitch = s.n_heads * D;
  const float scale = 1.0f / std::sqrt(static_cast<float>(D));
  const Heads<const T> heads(qkv.data<T>(), s, b);
  const Heads<T> grads(dqkv.data<T>(), s, b);
  const Rows<const T> key = heads.key(kv), value = heads.value(kv);

  const std::int64_t key_size = Right<T>::storage(s.seq, D), across = Right<T>::storage(D, kStrip),
                     along = Right<T>::storage(kStrip, D);
  T* packed = scratch<Packed, T>(key_size + 2 * (across + along));
  const Right<T> keys = Right<T>::make(packed, key, s.seq, D, Trans::no);
  packed += key_size;

  float* dk = scratch<Sums, float>((2 * s.seq + kStrip) * D);
  float *dv = dk + s.seq * D, *dq = dv + s.seq * D;
  std::fill(dk, dq, 0.0f);
  float *scores = scratch<Block, float>(2 * kKeyBlock * kStrip), *dp = scores + kKeyBlock * kStrip;
  T *p = scratch<Operands, T>(2 * kKeyBlock * kStrip), *ds = p + kKeyBlock * kStrip;
  float* distances = scratch<Distances, float>(biased ? s.seq : 0);

  for (std::int64_t h = kv * group; h < (kv + 1) * group; ++h) {
    if (biased) std::fill(distances, distances + s.seq, 0.0f);
    const float* bias_D = biased ? bias.by_distance_HD + h * s.seq : nullptr;
    for (std::int64_t first = 0; first < s.seq; first += kStrip) {
      const std::int64_t end = std::min(first + kStrip, s.seq), m = end - first;
      const std::int64_t y_at = (b * s.seq + first) * y_pitch + h * D;
      const Rows<const T> q = from_row(heads.query(h), first), dout{dy.data<T>() + y_at, y_pitch};
      const auto q_across = Right<T>::make(packed, q, D, m, Trans::yes);
      const auto dout_across = Right<T>::make(packed + across, dout, D, m, Trans::yes);
      const auto q_along = Right<T>::make(packed + 2 * across, q, m, D, Trans::no);
      const auto dout_along = Right<T>::make(packed + 2 * across + along, dout, m, D, Trans::no);
      float delta[kStrip];
      row_dots<T>(delta, dout, {y.data<T>() + y_at, y_pitch}, m, D);
      const float* lse = lse_BHT.data<float>() + (b * s.n_heads + h) * s.seq + first;

      for (std::int64_t j = 0; j < end; j += kKeyBlock) {
        const std::int64_t n = std::min(kKeyBlock, end - j), depth = Right<T>::depth(m);
        product({scores, kStrip}, from_row(key, j), q_across, {n, m, D}, Trans::no);
        product({dp, kStrip}, from_row(value, j), dout_across, {n, m, D}, Trans::no);
        (biased ? score_gradients<true, T> : score_gradients<false, T>)(p, ds, scores, dp, lse, delta, n, first - j, m,
                                                                        scale, bias_D, distances);
        product({dv + j * D, D}, {p, kStrip}, dout_along, {n, D, depth}, Trans::no, Into::accumulate);
        product({dk + j * D, D}, {ds, kStrip}, q_along, {n, D, depth}, Trans::no, Into::accumulate);
        product({dq, D}, {ds, kStrip}, keys.from(j), {m, D, n}, Trans::yes, j ? Into::accumulate : Into::overwrite);
      }
      store_rows(from_row(grads.query(h), first), dq, m, D);
    }
    each_bucket(bias.buckets, s.seq, [&](std::int64_t n, std::int64_t begin, std::int64_t end) {
      bias.sums_BHN[(b * s.n_heads + h) * bias.buckets.count + n] =
          std::accumulate(distances + begin, distances + end, 0.0f) / scale;
    });
  }
  store_rows(grads.key(kv), dk, s.seq, D);
  store_rows(grads.value(kv), dv, s.seq, D);
}

}  // namespace

void attention(Tensor& y, Tensor& lse_BHT, const Tensor& qkv, const Tensor& bias_HB, AttentionShape shape,
               RelativeBuckets buckets) {
  const float* bias_HD = by_distance(bias_HB, shape, buckets);
  with_row_type(qkv.dtype(), [&]<class T>(T) { forward<T>(y, lse_BHT, qkv, bias_HD, shape); });
}

void attention_backward(Tensor& dqkv, Tensor& dbias_HB, const Tensor& dy, const Tensor& qkv, const Tensor& bias_HB,
                        const Tensor& y, const Tensor& lse_BHT, AttentionShape shape, RelativeBuckets buckets) {
  struct Sums;
  const std::int64_t sums = bias_HB ? bias_HB.numel() : 0;
  const Bias bias{by_distance(bias_HB, shape, buckets), scratch<Sums, float>(shape.batch * sums),
                  bias_HB ? buckets : RelativeBuckets{}};
  with_row_type(qkv.dtype(), [&]<class T>(T) {
#pragma omp parallel for schedule(dynamic, 1)
    for (std::int64_t i = 0; i < shape.batch * shape.n_kv_heads; ++i)
      backward_head<T>(dqkv, dy, qkv, y, lse_BHT, shape, bias, i / shape.n_kv_heads, i % shape.n_kv_heads);
  });
  for (std::int64_t i = 0; i < sums; ++i) {
    float& sum = dbias_HB.data<float>()[i] = 0;
    for (std::int64_t b = 0; b < shape.batch; ++b) sum += bias.sums_BHN[b * sums + i];
  }
}

}  // namespace switchyard::cpu
