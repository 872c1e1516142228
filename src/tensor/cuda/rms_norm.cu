#include "tensor/cuda/block.cuh"
#include "tensor/cuda/kernels.h"
#include "tensor/cuda/row_blocks.cuh"

namespace switchyard::cuda {
namespace {

// Forward, a row's threads keep so many packs each in registers; of wider rows the rest is read twice, the second time
// from L2.
constexpr int kHeld = 2;
constexpr int kThreads = 1024;  // the most of a block, and those that the registers allow on a multiprocessor

// x: threads a row, whole warps. Narrow rows take a warp each and stand in y; then no thread meets a barrier.
dim3 block_for(std::int64_t packs, int held) {
  const std::int64_t warps = ceil_div(packs, std::int64_t{held} * kWarpSize);
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
// The packs of a row that this thread takes: its h-th is number pack_of(h).
__device__ inline int pack_of(int h) { return int(threadIdx.x) + h * int(blockDim.x); }
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
__global__ void __launch_bounds__(kThreads)
    forward_kernel(T* y, float* rstd, const T* x, const float* w, std::int64_t rows, int packs, float eps) {
  const Shared<float> parts = SharedMemory().take<float>(kWarpSize);
  Pack<float, N> weight[kHeld];
  for (int h = 0; h < kHeld; ++h)
    if (pack_of(h) < packs) weight[h] = load_pack<N>(w + pack_of(h) * N);

  for (std::int64_t row = first_row(); row < rows; row += row_stride()) {
    const T* from = x + row * packs * N;
    T* to = y + row * packs * N;
    Pack<T, N> held[kHeld];
    for (int h = 0; h < kHeld; ++h)
      if (pack_of(h) < packs) held[h] = load_pack<N>(from + pack_of(h) * N);
    float squares = 0;
    for (int h = 0; h < kHeld; ++h)
      if (pack_of(h) < packs) squares += sum_squares(held[h]);
    for (int p = pack_of(kHeld); p < packs; p += int(blockDim.x)) squares += sum_squares(load_pack<N>(from + p * N));

    const float s = 1.0f / sqrtf(row_sum(squares, parts) / float(packs * N) + eps);
    if (threadIdx.x == 0) rstd[row] = s;
    for (int h = 0; h < kHeld; ++h)
      if (pack_of(h) < packs) store_pack(to + pack_of(h) * N, scaled(held[h], weight[h], s));
    for (int p = pack_of(kHeld); p < packs; p += int(blockDim.x))
      store_pack(to + p * N, scaled(load_pack<N>(from + p * N), load_pack<N>(w + p * N), s));
  }
}

// N columns of one row: what the two passes over it compute.
template <int N, class T>
struct Columns {
  Pack<T, N> x, dy;

  __device__ static Columns at(const T* x_row, const T* dy_row, int first) {
    return {load_pack<N>(x_row + first), load_pack<N>(dy_row + first)};
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

// With n = x rstd:  dw = sum_r dy n,  dx = rstd (w dy - n mean(w dy n)).  A thread keeps its pack of dw over all rows
// that it meets in registers and, where rows are wider than a block, its packs beyond in the part itself. The next row
// is on its way while one is summed.
template <int N, bool wide, class T>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(T* dx, float* dw_parts, const T* dy, const T* x, const float* w, const float* rstd,
                    std::int64_t rows, int packs) {
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

  Columns<N, T> next = {};
  const auto fetch = [&](std::int64_t row) {
    if (any && row < rows) next = Columns<N, T>::at(x + row * packs * N, dy + row * packs * N, mine * N);
  };
  fetch(first_row());
  for (std::int64_t row = first_row(); row < rows; row += row_stride()) {
    const std::int64_t begin = row * packs * N;
    const Columns<N, T> held = next;
    fetch(row + row_stride());
    const float s = rstd[row];
    float dot = held.dot(weight);  // of zeros where this thread has no pack
    each_beyond([&](int i) { dot += Columns<N, T>::at(x + begin, dy + begin, i).dot(load_pack<N>(w + i)); });

    const float mean = row_sum(dot, parts) * s / float(packs * N);
    if (any) store_pack(dx + begin + mine * N, held.gradient(dw, weight, s, mean));
    each_beyond([&](int i) {
      Pack<float, N> sum = load_pack<N>(part + i);
      const auto columns = Columns<N, T>::at(x + begin, dy + begin, i);
      store_pack(dx + begin + i, columns.gradient(sum, load_pack<N>(w + i), s, mean));
      store_pack(part + i, sum);
    });
  }
  if (any) store_pack(part + mine * N, dw);
}

}  // namespace

void rms_norm(Tensor& y_RD, Tensor& rstd_R, const Tensor& x_RD, const Tensor& w_D, float eps) {
  Context& on = context(y_RD.device());
  const std::int64_t rows = x_RD.dim(0), dim = x_RD.dim(1);
  dispatch_float(x_RD.dtype(), "rms_norm", [&](auto zero) {
    using T = decltype(zero);
    T* y = ptr<T>(y_RD);
    const T* x = ptr<T>(x_RD);
    const float* w = ptr<float>(w_D);
    with_pack<T>(
        dim,
        [&](auto n) {
          const dim3 block = block_for(dim / n(), kHeld);
          launch(on, "rms_norm", forward_kernel<n(), T>, blocks_for(on, rows, block), block,
                 shared_bytes_of<float>(kWarpSize), y, ptr<float>(rstd_R), x, w, rows, int(dim / n()), eps);
        },
        y, x, w);
  });
}

void rms_norm_backward(Tensor& dx_RD, Tensor& dw_D, const Tensor& dy_RD, const Tensor& x_RD, const Tensor& w_D,
                       const Tensor& rstd_R) {
  Context& on = context(dx_RD.device());
  const std::int64_t rows = x_RD.dim(0), dim = x_RD.dim(1);
  dispatch_float(x_RD.dtype(), "rms_norm_backward", [&](auto zero) {
    using T = decltype(zero);
    T* dx = ptr<T>(dx_RD);
    const T *dy = ptr<T>(dy_RD), *x = ptr<T>(x_RD);
    const float* w = ptr<float>(w_D);
    with_pack<T>(
        dim,
        [&](auto n) {
          const dim3 block = block_for(dim / n(), 1);
          const unsigned blocks = blocks_for(on, rows, block);
          const int parts = int(blocks * block.y);
          float* const dw_parts = on.scratch<float>(parts * dim);
          const auto kernel = dim / n() > kThreads ? backward_kernel<n(), true, T> : backward_kernel<n(), false, T>;
          launch(on, "rms_norm_backward", kernel, blocks, block, shared_bytes_of<float>(kWarpSize), dx, dw_parts, dy, x,
                 w, ptr<float>(rstd_R), rows, int(dim / n()));
          sum_parts(on, "rms_norm_dw", ptr<float>(dw_D), dw_parts, parts, dim, dim);
        },
        dx, dy, x, w);
  });
}

}  // namespace switchyard::cuda
