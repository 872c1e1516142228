#include "tensor/cuda/block.cuh"
#include "tensor/cuda/kernels.h"
#include "tensor/cuda/row_blocks.cuh"

namespace switchyard::cuda {
namespace {

constexpr int kThreads = 1024;  // the most of a block, and those that the registers allow on a multiprocessor

// x: threads a row, whole warps. Narrow rows take a warp each and stand in y; then no thread meets a barrier.
dim3 block_for(std::int64_t packs) {
  const std::int64_t warps = ceil_div(packs, std::int64_t{kWarpSize});
  if (warps <= 1) return dim3(kWarpSize, 4);
  return dim3(unsigned(warps * kWarpSize < kThreads ? warps * kWarpSize : kThreads));
}
unsigned blocks_for(const Context& on, std::int64_t rows, dim3 block) {
  return grid_for(on, rows, int(block.y), kThreads / int(block.x * block.y));
}

// The sum over a row's threads, in each of them.
__device__ inline float row_sum(float x, Shared<float> parts) {
  return blockDim.x == kWarpSize ? warp_sum(x) : block_sum(x, parts);
}
__device__ inline std::int64_t first_row() { return std::int64_t{blockIdx.x} * blockDim.y + threadIdx.y; }
__device__ inline std::int64_t row_stride() { return std::int64_t{gridDim.x} * blockDim.y; }

template <int N, class T>
__device__ float sum_squares(const Pack<T, N>& x) {
  float sum = 0;
  for (int i = 0; i < N; ++i) sum += float(x.v[i]) * float(x.v[i]);
  return sum;
}
template <int N, class T>
__device__ Pack<T, N> scaled(const Pack<T, N>& x, const Pack<float, N>& w, float s) {
  Pack<T, N> y;
  for (int i = 0; i < N; ++i) y.v[i] = T(float(x.v[i]) * s * w.v[i]);
  return y;
}

template <int N, class T>
__device__ void add(Pack<T, N>& y, const Pack<T, N>& x) {
  for (int i = 0; i < N; ++i) y.v[i] = T(float(y.v[i]) + float(x.v[i]));
}

// What forward norms, read in packs of N: rows in memory,
template <int N, class T>
struct Stored {
  using Type = T;
  static constexpr int kPack = N;
  const T* x;

  __device__ Stored from(std::int64_t begin) const { return {x + begin}; }
  __device__ Pack<T, N> first(int i) const { return load_pack<N>(x + i); }
  __device__ Pack<T, N> again(int i) const { return first(i); }
};
// or the rounded sums of two, which the first pass over a row stores and the second, the same thread's, reads again.
template <int N, class T>
struct Summed {
  using Type = T;
  static constexpr int kPack = N;
  const T *a, *b;
  T* sum;

  __device__ Summed from(std::int64_t begin) const { return {a + begin, b + begin, sum + begin}; }
  __device__ Pack<T, N> first(int i) const {
    Pack<T, N> y = load_pack<N>(a + i);
    add(y, load_pack<N>(b + i));
    store_pack(sum + i, y);
    return y;
  }
  __device__ Pack<T, N> again(int i) const { return load_pack<N>(sum + i); }
};

// A thread keeps its pack of a row in registers; of rows wider than a block the rest is read twice, the second time
// from L2.
template <class X>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(typename X::Type* y, float* rstd, X x, const float* w, std::int64_t rows, int packs, float eps) {
  constexpr int N = X::kPack;
  const Shared<float> parts = SharedMemory().take<float>(kWarpSize);
  const int mine = int(threadIdx.x);
  const bool any = mine < packs;
  Pack<float, N> weight = {};
  if (any) weight = load_pack<N>(w + mine * N);

  for (std::int64_t row = first_row(); row < rows; row += row_stride()) {
    const X from = x.from(row * packs * N);
    auto* const to = y + row * packs * N;
    Pack<typename X::Type, N> held = {};
    if (any) held = from.first(mine * N);
    float squares = sum_squares(held);  // of zeros where this thread has no pack
    for (int p = mine + int(blockDim.x); p < packs; p += int(blockDim.x)) squares += sum_squares(from.first(p * N));

    const float s = 1.0f / sqrtf(row_sum(squares, parts) / float(packs * N) + eps);
    if (threadIdx.x == 0) rstd[row] = s;
    if (any) store_pack(to + mine * N, scaled(held, weight, s));
    for (int p = mine + int(blockDim.x); p < packs; p += int(blockDim.x))
      store_pack(to + p * N, scaled(from.again(p * N), load_pack<N>(w + p * N), s));
  }
}

// N columns of one row: what the two passes over it compute.
template <int N, class T>
struct Columns {
  Pack<T, N> x, dy;

  __device__ static Columns at(const T* x, const T* dy, std::int64_t first) {
    return {load_pack<N>(x + first), load_pack<N>(dy + first)};
  }
  __device__ float dot(const Pack<float, N>& w) const {
    float sum = 0;
    for (int i = 0; i < N; ++i) sum += w.v[i] * float(dy.v[i]) * float(x.v[i]);
    return sum;
  }
  // Adds to dw and returns dx.
  __device__ Pack<T, N> gradient(Pack<float, N>& dw, const Pack<float, N>& w, float s, float mean) const {
    Pack<T, N> dx;
    for (int i = 0; i < N; ++i) {
      const float n = float(x.v[i]) * s, g = float(dy.v[i]);
      dw.v[i] += g * n;
      dx.v[i] = T(s * (w.v[i] * g - n * mean));
    }
    return dx;
  }
};

// With n = x rstd:  dw = sum_r dy n,  dx = rstd (w dy - n mean(w dy n)), and where it skips + dskip.  A thread keeps
// its pack of dw over all rows that it meets in registers and, where rows are wider than a block, its packs beyond in
// the part itself. The next row is on its way while one is summed; dskip, for which no registers are left, only then.
template <int N, bool wide, bool skips, class T>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(T* dx, float* dw_parts, const T* dy, const T* dskip, const T* x, const float* w, const float* rstd,
                    std::int64_t rows, int packs) {
  using Columns = Columns<N, T>;
  const Shared<float> parts = SharedMemory().take<float>(kWarpSize);
  const int mine = int(threadIdx.x);
  const bool any = mine < packs;
  const auto each_beyond = [&](auto body) {
    if constexpr (wide)
      for (int p = mine + int(blockDim.x); p < packs; p += int(blockDim.x)) body(p * N);
  };
  float* part = dw_parts + first_row() * packs * N;
  Pack<float, N> weight = {}, dw = {};
  if (any) weight = load_pack<N>(w + mine * N);
  each_beyond([&](int i) { store_pack(part + i, Pack<float, N>{}); });

  Columns next = {};
  const auto fetch = [&](std::int64_t row) {
    if (any && row < rows) next = Columns::at(x, dy, (row * packs + mine) * N);
  };
  fetch(first_row());
  for (std::int64_t row = first_row(); row < rows; row += row_stride()) {
    const std::int64_t begin = row * packs * N;
    const Columns held = next;
    fetch(row + row_stride());
    Pack<T, N> skip = {};
    if constexpr (skips)
      if (any) skip = load_pack<N>(dskip + begin + mine * N);
    const float s = rstd[row];
    float dot = held.dot(weight);  // of zeros where this thread has no pack
    each_beyond([&](int i) { dot += Columns::at(x, dy, begin + i).dot(load_pack<N>(w + i)); });

    const float mean = row_sum(dot, parts) * s / float(packs * N);
    if (any) {
      Pack<T, N> out = held.gradient(dw, weight, s, mean);
      if constexpr (skips) add(out, skip);
      store_pack(dx + begin + mine * N, out);
    }
    each_beyond([&](int i) {
      Pack<float, N> sum = load_pack<N>(part + i);
      Pack<T, N> out = Columns::at(x, dy, begin + i).gradient(sum, load_pack<N>(w + i), s, mean);
      if constexpr (skips) add(out, load_pack<N>(dskip + begin + i));
      store_pack(dx + begin + i, out);
      store_pack(part + i, sum);
    });
  }
  if (any) store_pack(part + mine * N, dw);
}

// y = rms_norm(x), x(n) being the rows in packs of n elements, which lie at `pointers`.
template <class T, class Rows, class... P>
void norm_rows(const char* name, Tensor& y_RD, Tensor& rstd_R, const Tensor& w_D, float eps, Rows&& x,
               const P*... pointers) {
  Context& on = context(y_RD.device());
  const std::int64_t rows = y_RD.dim(0), dim = y_RD.dim(1);
  T* y = ptr<T>(y_RD);
  const float* w = ptr<float>(w_D);
  with_pack<T>(
      dim,
      [&](auto n) {
        using X = decltype(x(n));
        const dim3 block = block_for(dim / n());
        launch(on, name, forward_kernel<X>, blocks_for(on, rows, block), block, shared_bytes_of<float>(kWarpSize), y,
               ptr<float>(rstd_R), x(n), w, rows, int(dim / n()), eps);
      },
      y, w, pointers...);
}

template <bool skips>
void norm_rows_backward(const char* name, Tensor& dx_RD, Tensor& dw_D, const Tensor& dy_RD, const Tensor& dskip_RD,
                        const Tensor& x_RD, const Tensor& w_D, const Tensor& rstd_R) {
  Context& on = context(dx_RD.device());
  const std::int64_t rows = x_RD.dim(0), dim = x_RD.dim(1);
  dispatch_float(x_RD.dtype(), name, [&](auto zero) {
    using T = decltype(zero);
    T* dx = ptr<T>(dx_RD);
    const T *dy = ptr<T>(dy_RD), *dskip = skips ? ptr<T>(dskip_RD) : nullptr, *x = ptr<T>(x_RD);
    const float* w = ptr<float>(w_D);
    with_pack<T>(
        dim,
        [&](auto n) {
          const dim3 block = block_for(dim / n());
          const unsigned blocks = blocks_for(on, rows, block);
          const int parts = int(blocks * block.y);
          float* const dw_parts = on.scratch<float>(parts * dim);
          const auto kernel =
              dim / n() > kThreads ? backward_kernel<n(), true, skips, T> : backward_kernel<n(), false, skips, T>;
          launch(on, name, kernel, blocks, block, shared_bytes_of<float>(kWarpSize), dx, dw_parts, dy, dskip, x, w,
                 ptr<float>(rstd_R), rows, int(dim / n()));
          sum_parts(on, "rms_norm_dw", ptr<float>(dw_D), dw_parts, parts, dim, dim);
        },
        dx, dy, dskip, x, w);
  });
}

}  // namespace

void rms_norm(Tensor& y_RD, Tensor& rstd_R, const Tensor& x_RD, const Tensor& w_D, float eps) {
  dispatch_float(x_RD.dtype(), "rms_norm", [&](auto zero) {
    using T = decltype(zero);
    const T* x = ptr<T>(x_RD);
    norm_rows<T>(
        "rms_norm", y_RD, rstd_R, w_D, eps, [=](auto n) { return Stored<n(), T>{x}; }, x);
  });
}

void add_rms_norm(Tensor& y_RD, Tensor& sum_RD, Tensor& rstd_R, const Tensor& a_RD, const Tensor& b_RD,
                  const Tensor& w_D, float eps) {
  dispatch_float(a_RD.dtype(), "add_rms_norm", [&](auto zero) {
    using T = decltype(zero);
    const T *a = ptr<T>(a_RD), *b = ptr<T>(b_RD);
    T* sum = ptr<T>(sum_RD);
    norm_rows<T>(
        "add_rms_norm", y_RD, rstd_R, w_D, eps,
        [=](auto n) {
          return Summed<n(), T>{a, b, sum};
        },
        a, b, sum);
  });
}

void rms_norm_backward(Tensor& dx_RD, Tensor& dw_D, const Tensor& dy_RD, const Tensor& x_RD, const Tensor& w_D,
                       const Tensor& rstd_R) {
  norm_rows_backward<false>("rms_norm_backward", dx_RD, dw_D, dy_RD, {}, x_RD, w_D, rstd_R);
}

void add_rms_norm_backward(Tensor& dsum_RD, Tensor& dw_D, const Tensor& dy_RD, const Tensor& dskip_RD,
                           const Tensor& sum_RD, const Tensor& w_D, const Tensor& rstd_R) {
  const auto backward = dskip_RD ? norm_rows_backward<true> : norm_rows_backward<false>;
  backward("add_rms_norm_backward", dsum_RD, dw_D, dy_RD, dskip_RD, sum_RD, w_D, rstd_R);
}

}  // namespace switchyard::cuda
