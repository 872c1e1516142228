#include <cmath>

#include "tensor/cuda/block.cuh"
#include "tensor/cuda/kernels.h"
#include "tensor/cuda/row_blocks.cuh"

namespace switchyard::cuda {
namespace {

// A warp takes a token, and `lanes` of its lanes a head: each N elements of the head's first half and the N that they
// are rotated with in its second. So a lane meets the same angles in all heads of a token, and computes them once.
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarpSize;
constexpr int kBlocks = 4, kBlocksBackward = 2;  // on a multiprocessor, as the registers allow

struct Layout {
  std::int64_t tokens;
  int seq, queries, keys, dim;  // heads of each kind, as many values as keys, and the width of one
  int chunks, lanes;            // of N elements in half a head; a power of two that covers them, or a warp
  double octaves;               // frequency i turns by 2^(octaves i) a position
  float turn;                   // 1, or -1 to turn back, or 0 to leave it

  bool wide() const { return chunks > lanes; }
  __device__ int half() const { return dim / 2; }
  __device__ int heads() const { return queries + keys; }
  __device__ std::int64_t width() const { return std::int64_t{heads() + keys} * dim; }
};

Layout layout_of(AttentionShape shape, Rope rope, int n, float turn) {
  const int chunks = int(shape.head_dim / 2 / n);
  int lanes = 1;
  while (lanes < chunks && lanes < kWarpSize) lanes *= 2;
  return {.tokens = shape.tokens(),
          .seq = int(shape.seq),
          .queries = int(shape.n_heads),
          .keys = int(shape.n_kv_heads),
          .dim = int(shape.head_dim),
          .chunks = chunks,
          .lanes = lanes,
          .octaves = rope.theta > 0 ? -2 * std::log2(double{rope.theta}) / double(shape.head_dim) : 0,
          .turn = rope.theta > 0 ? turn : 0};
}

// Where a lane stands: in which of the warp's heads, and at which chunk of it, if it has any.
struct Lane {
  int group, groups, chunk;
  bool any;
  __device__ explicit Lane(const Layout& at)
      : group(lane_id() / at.lanes),
        groups(kWarpSize / at.lanes),
        chunk(lane_id() % at.lanes),
        any(chunk < at.chunks) {}
};
// Heads of more chunks than a warp has lanes: body(c) for those of the lane's chunks that come after its first.
template <bool wide, class Body>
__device__ void each_beyond(const Lane& lane, const Layout& at, Body body) {
  if constexpr (wide)
    for (int c = lane.chunk + at.lanes; c < at.chunks; c += at.lanes) body(c);
}
__device__ inline std::int64_t first_token() { return std::int64_t{blockIdx.x} * kWarps + warp_id(); }
__device__ inline std::int64_t token_stride() { return std::int64_t{gridDim.x} * kWarps; }

// theta^(-2i/dim), by the block, from double: an error of one unit in the last place of f32 would grow with the
// position to 0.006 at 100,000.
__device__ inline Shared<float> frequencies(SharedMemory& shared, const Layout& at) {
  const Shared<float> frequency = shared.take<float>(at.half());
  for (int i = int(threadIdx.x); i < at.half(); i += kThreads)
    frequency[i] = at.turn * float(exp2(double(i) * at.octaves));
  __syncthreads();
  return frequency;
}

template <int N>
struct Angles {
  float cos[N], sin[N];

  __device__ Angles(Shared<float> frequency, int chunk, int position) {
    for (int i = 0; i < N; ++i) sincosf(float(position) * frequency[chunk * N + i], &sin[i], &cos[i]);
  }
};

// One chunk of a head: elements chunk N + i and half + chunk N + i.
template <int N, class T>
struct Pairs {
  Pack<T, N> a, b;

  __device__ static Pairs at(const T* head, int chunk, int half) {
    return {load_pack<N>(head + chunk * N), load_pack<N>(head + half + chunk * N)};
  }
  __device__ void store(T* head, int chunk, int half) const {
    store_pack(head + chunk * N, a);
    store_pack(head + half + chunk * N, b);
  }
};

template <int N, class T>
__device__ float sum_squares(const Pairs<N, T>& x) {
  float sum = 0;
  for (int i = 0; i < N; ++i) sum += float(x.a.v[i]) * float(x.a.v[i]) + float(x.b.v[i]) * float(x.b.v[i]);
  return sum;
}

// y = rotate(x s w)
template <bool norm, int N, class T>
__device__ Pairs<N, T> rotated(const Pairs<N, T>& x, const Angles<N>& by, float s, const Pairs<N, float>& w) {
  Pairs<N, T> y;
  for (int i = 0; i < N; ++i) {
    const float a = norm ? float(x.a.v[i]) * s * w.a.v[i] : float(x.a.v[i]);
    const float b = norm ? float(x.b.v[i]) * s * w.b.v[i] : float(x.b.v[i]);
    y.a.v[i] = T(a * by.cos[i] - b * by.sin[i]);
    y.b.v[i] = T(b * by.cos[i] + a * by.sin[i]);
  }
  return y;
}

// The sum over a head's lanes, in each of them.
__device__ inline float head_sum(float x, int lanes) {
  for (int step = lanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}

template <int N, class T>
__device__ void copy_values(T* y, const T* x, const Layout& at) {
  const int begin = at.heads() * at.dim, end = int(at.width());
  for (int i = begin + lane_id() * N; i < end; i += kWarpSize * N) store_pack(y + i, load_pack<N>(x + i));
}

template <bool norm, bool wide, int N, class T>
__global__ void __launch_bounds__(kThreads, kBlocks)
    forward_kernel(T* y, float* rstd, const T* x, const float* wq, const float* wk, float eps, Layout at) {
  SharedMemory shared;
  const Shared<float> frequency = frequencies(shared, at);
  const Lane lane(at);
  const int half = at.half();
  for (std::int64_t token = first_token(); token < at.tokens; token += token_stride()) {
    const int position = int(token % at.seq);
    const T* row = x + token * at.width();
    T* out = y + token * at.width();
    const Angles<N> angles(frequency, lane.any ? lane.chunk : 0, position);
    for (int first = 0; first < at.heads(); first += lane.groups) {
      const int h = first + lane.group;
      const bool any = lane.any && h < at.heads();
      const T* head = row + h * at.dim;
      Pairs<N, T> held = {};
      if (any) held = Pairs<N, T>::at(head, lane.chunk, half);
      float s = 1;
      if constexpr (norm) {
        float squares = sum_squares(held);
        if (any) each_beyond<wide>(lane, at, [&](int c) { squares += sum_squares(Pairs<N, T>::at(head, c, half)); });
        s = 1.0f / sqrtf(head_sum(squares, at.lanes) / float(at.dim) + eps);
        if (any && lane.chunk == 0) rstd[token * at.heads() + h] = s;
      }
      const auto store = [&](const Pairs<N, T>& pairs, const Angles<N>& by, int c) {
        Pairs<N, float> w;
        if constexpr (norm) w = Pairs<N, float>::at(h < at.queries ? wq : wk, c, half);
        rotated<norm>(pairs, by, s, w).store(out + h * at.dim, c, half);
      };
      if (any) {
        store(held, angles, lane.chunk);
        each_beyond<wide>(lane, at,
                          [&](int c) { store(Pairs<N, T>::at(head, c, half), Angles<N>(frequency, c, position), c); });
      }
    }
    copy_values<N>(out, row, at);
  }
}

// The transpose of the rotation: the gradient before it.
template <int N, class T>
__device__ Pairs<N, float> rotated_back(const Pairs<N, T>& dy, const Angles<N>& by) {
  Pairs<N, float> g;
  for (int i = 0; i < N; ++i) {
    const float a = float(dy.a.v[i]), b = float(dy.b.v[i]);
    g.a.v[i] = a * by.cos[i] + b * by.sin[i];
    g.b.v[i] = b * by.cos[i] - a * by.sin[i];
  }
  return g;
}
template <int N, class T>
__device__ float dot(const Pairs<N, float>& w, const Pairs<N, float>& g, const Pairs<N, T>& x) {
  float sum = 0;
  for (int i = 0; i < N; ++i) sum += w.a.v[i] * g.a.v[i] * float(x.a.v[i]) + w.b.v[i] * g.b.v[i] * float(x.b.v[i]);
  return sum;
}
// Adds to dw and returns dx, as in rms_norm.cu.
template <int N, class T>
__device__ Pack<T, N> gradient(Pack<float, N>& dw, const Pack<float, N>& w, const Pack<float, N>& g,
                               const Pack<T, N>& x, float s, float mean) {
  Pack<T, N> dx;
  for (int i = 0; i < N; ++i) {
    const float n = float(x.v[i]) * s;
    dw.v[i] += g.v[i] * n;
    dx.v[i] = T(s * (w.v[i] * g.v[i] - n * mean));
  }
  return dx;
}
template <int N, class T>
__device__ Pairs<N, T> gradient(Pairs<N, float>& dw, const Pairs<N, float>& w, const Pairs<N, float>& g,
                                const Pairs<N, T>& x, float s, float mean) {
  return {gradient(dw.a, w.a, g.a, x.a, s, mean), gradient(dw.b, w.b, g.b, x.b, s, mean)};
}

// Adds up what the warp's groups of lanes have, in each of them.
template <int N>
__device__ void add_groups(Pairs<N, float>& x, int lanes) {
  for (int step = lanes; step < kWarpSize; step *= 2)
    for (int i = 0; i < N; ++i) {
      x.a.v[i] += __shfl_xor_sync(kAllLanes, x.a.v[i], step);
      x.b.v[i] += __shfl_xor_sync(kAllLanes, x.b.v[i], step);
    }
}

// With norms. A lane keeps its chunk of dwq and dwk over all heads that it meets in registers, and chunks beyond in its
// warp's row of shared memory. A block's part is dwq, then dwk.
template <bool wide, int N, class T>
__global__ void __launch_bounds__(kThreads, kBlocksBackward)
    backward_kernel(T* dx, float* dw_parts, const T* dy, const T* x, const float* wq, const float* wk,
                    const float* rstd, Layout at) {
  SharedMemory shared;
  const Shared<float> frequency = frequencies(shared, at), sums = shared.take<float>(kWarps * 2 * at.dim);
  const Lane lane(at);
  const int half = at.half();
  const auto sums_of = [&](int keys, int c) { return &sums[(2 * warp_id() + keys) * at.dim + c * N]; };
  each_beyond<wide>(lane, at, [&](int c) {
    for (int keys = 0; keys < 2; ++keys) Pairs<N, float>{}.store(sums_of(keys, c), 0, half);
  });
  Pairs<N, float> dwq = {}, dwk = {};
  for (std::int64_t token = first_token(); token < at.tokens; token += token_stride()) {
    const int position = int(token % at.seq);
    const std::int64_t row = token * at.width();
    const Angles<N> angles(frequency, lane.any ? lane.chunk : 0, position);
    const auto some_heads = [&](int begin, int end, const float* weight, Pairs<N, float>& dw, int keys) {
      for (int first = begin; first < end; first += lane.groups) {
        const int h = first + lane.group;
        const bool any = lane.any && h < end;
        const std::int64_t head = row + h * at.dim;
        const auto g_of = [&](int c, const Angles<N>& by) {
          return rotated_back(Pairs<N, T>::at(dy + head, c, half), by);
        };
        const auto x_of = [&](int c) { return Pairs<N, T>::at(x + head, c, half); };
        const auto w_of = [&](int c) { return Pairs<N, float>::at(weight, c, half); };
        Pairs<N, T> held = {};
        Pairs<N, float> g = {};
        float sum = 0, s = 0;
        if (any) {
          g = g_of(lane.chunk, angles);
          held = x_of(lane.chunk);
          s = rstd[token * at.heads() + h];
          sum = dot(w_of(lane.chunk), g, held);
          each_beyond<wide>(lane, at, [&](int c) { sum += dot(w_of(c), g_of(c, {frequency, c, position}), x_of(c)); });
        }
        const float mean = head_sum(sum, at.lanes) * s / float(at.dim);
        if (any) {
          gradient(dw, w_of(lane.chunk), g, held, s, mean).store(dx + head, lane.chunk, half);
          each_beyond<wide>(lane, at, [&](int c) {
            auto dw_beyond = Pairs<N, float>::at(sums_of(keys, c), 0, half);
            gradient(dw_beyond, w_of(c), g_of(c, {frequency, c, position}), x_of(c), s, mean).store(dx + head, c, half);
            dw_beyond.store(sums_of(keys, c), 0, half);
          });
        }
      }
    };
    some_heads(0, at.queries, wq, dwq, 0);
    some_heads(at.queries, at.heads(), wk, dwk, 1);
    copy_values<N>(dx + row, dy + row, at);
  }

  add_groups(dwq, at.lanes);
  add_groups(dwk, at.lanes);
  if (lane.any && lane.group == 0) {
    dwq.store(sums_of(0, lane.chunk), 0, half);
    dwk.store(sums_of(1, lane.chunk), 0, half);
  }
  __syncthreads();
  for (int i = int(threadIdx.x); i < 2 * at.dim; i += kThreads) {
    float sum = 0;
    for (int warp = 0; warp < kWarps; ++warp) sum += sums[warp * 2 * at.dim + i];
    dw_parts[blockIdx.x * 2 * std::int64_t{at.dim} + i] = sum;
  }
}

// Rotates without norms, forward or, with turn -1, back.
template <class T>
void rotate(Context& on, const char* name, Tensor& y, const Tensor& x, AttentionShape shape, Rope rope, float turn) {
  with_pack<T>(
      shape.head_dim / 2,
      [&](auto n) {
        const Layout at = layout_of(shape, rope, n(), turn);
        launch(on, name, at.wide() ? forward_kernel<false, true, n(), T> : forward_kernel<false, false, n(), T>,
               grid_for(on, at.tokens, kWarps, kBlocks), kThreads, shared_bytes_of<float>(shape.head_dim / 2),
               ptr<T>(y), nullptr, ptr<T>(x), nullptr, nullptr, 0.0f, at);
      },
      ptr<T>(y), ptr<T>(x));
}

}  // namespace

void qk_norm_rope(Tensor& y, Tensor& rstd, const Tensor& x, const Tensor& wq, const Tensor& wk, float eps,
                  AttentionShape shape, Rope rope) {
  Context& on = context(y.device());
  dispatch_float(x.dtype(), "qk_norm_rope", [&](auto zero) {
    using T = decltype(zero);
    if (!wq) return rotate<T>(on, "qk_norm_rope", y, x, shape, rope, 1);
    T* ys = ptr<T>(y);
    const T* xs = ptr<T>(x);
    const float *q_weight = ptr<float>(wq), *k_weight = ptr<float>(wk);
    with_pack<T>(
        shape.head_dim / 2,
        [&](auto n) {
          const Layout at = layout_of(shape, rope, n(), 1);
          launch(on, "qk_norm_rope",
                 at.wide() ? forward_kernel<true, true, n(), T> : forward_kernel<true, false, n(), T>,
                 grid_for(on, at.tokens, kWarps, kBlocks), kThreads, shared_bytes_of<float>(shape.head_dim / 2), ys,
                 ptr<float>(rstd), xs, q_weight, k_weight, eps, at);
        },
        ys, xs, q_weight, k_weight);
  });
}

void qk_norm_rope_backward(Tensor& dx, Tensor& dwq, Tensor& dwk, const Tensor& dy, const Tensor& x, const Tensor& wq,
                           const Tensor& wk, const Tensor& rstd, AttentionShape shape, Rope rope) {
  Context& on = context(dx.device());
  const std::int64_t dim = shape.head_dim;
  dispatch_float(dy.dtype(), "qk_norm_rope_backward", [&](auto zero) {
    using T = decltype(zero);
    if (!wq) return rotate<T>(on, "qk_norm_rope_backward", dx, dy, shape, rope, -1);
    T* dxs = ptr<T>(dx);
    const T *dys = ptr<T>(dy), *xs = ptr<T>(x);
    const float *q_weight = ptr<float>(wq), *k_weight = ptr<float>(wk);
    with_pack<T>(
        dim / 2,
        [&](auto n) {
          const Layout at = layout_of(shape, rope, n(), 1);
          const unsigned blocks = grid_for(on, at.tokens, kWarps, kBlocksBackward);
          float* const parts = on.scratch<float>(2 * dim * blocks);
          launch(on, "qk_norm_rope_backward",
                 at.wide() ? backward_kernel<true, n(), T> : backward_kernel<false, n(), T>, blocks, kThreads,
                 shared_bytes_of<float>(dim / 2) + shared_bytes_of<float>(kWarps * 2 * dim), dxs, parts, dys, xs,
                 q_weight, k_weight, ptr<float>(rstd), at);
          sum_parts(on, "qk_norm_dwq", ptr<float>(dwq), parts, int(blocks), 2 * dim, dim);
          sum_parts(on, "qk_norm_dwk", ptr<float>(dwk), parts + dim, int(blocks), 2 * dim, dim);
        },
        dxs, dys, xs, q_weight, k_weight);
  });
}

}  // namespace switchyard::cuda
