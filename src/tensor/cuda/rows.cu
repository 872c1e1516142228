#include <algorithm>
#include <bit>

#include "tensor/cuda/grouping.cuh"
#include "tensor/cuda/kernels.h"

// A warp takes a row, its lanes P neighbouring elements at a time: sixteen bytes of the widest type where the width is
// a multiple of that and every row begins at one, else a single element.
namespace switchyard::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarpSize;

template <class T, int P>
struct alignas(P * sizeof(T)) Elements {
  T v[P];
};
template <int P, class T>
__device__ Elements<T, P> load(const T* p) {
  return *reinterpret_cast<const Elements<T, P>*>(p);
}
template <int P, class T>
__device__ void store(T* p, const Elements<T, P>& x) {
  *reinterpret_cast<Elements<T, P>*>(p) = x;
}

template <int P, class T>
bool fits(const T* p) {
  return reinterpret_cast<std::uintptr_t>(p) % (P * sizeof(T)) == 0;
}

// Calls f(std::integral_constant<int, P>) with P = Most where rows of that width allow it, else with 1.
template <int Most, class F, class... T>
void dispatch_width(std::int64_t dim, F&& f, const T*... p) {
  if (dim % Most == 0 && (fits<Most>(p) && ...))
    f(std::integral_constant<int, Most>{});
  else
    f(std::integral_constant<int, 1>{});
}

__device__ std::int64_t first_row() { return std::int64_t{blockIdx.x} * kWarps + warp_id(); }
__device__ std::int64_t row_stride() { return std::int64_t{gridDim.x} * kWarps; }

template <int P, class T>
__device__ void clear_row(T* row, std::int64_t dim) {
  Elements<T, P> zeros;
  for (int j = 0; j < P; ++j) zeros.v[j] = T(0.0f);
  for (std::int64_t i = lane_id() * P; i < dim; i += kWarpSize * P) store<P>(row + i, zeros);
}

template <int P, class Y, class X>
__global__ void gather_kernel(Y* __restrict__ y_ND, const X* __restrict__ x_RD, const int* __restrict__ index,
                              std::int64_t rows, std::int64_t dim) {
  for (std::int64_t n = first_row(); n < rows; n += row_stride()) {
    const int row = index[n];
    Y* const y = y_ND + n * dim;
    if (row < 0) {
      clear_row<P>(y, dim);
      continue;
    }
    const X* const x = x_RD + row * dim;
#pragma unroll 4
    for (std::int64_t i = lane_id() * P; i < dim; i += kWarpSize * P) {
      const Elements<X, P> in = load<P>(x + i);
      Elements<Y, P> out;
      for (int j = 0; j < P; ++j) out.v[j] = Y(float(in.v[j]));
      store<P>(y + i, out);
    }
  }
}

// Digits of the rows' indices for a sort from the last digit to the first; no row counts as one row beyond the last.
struct Digit {
  const int *index, *order;  // no order: that of N
  int none, shift, mask;

  __device__ int operator()(std::int64_t i) const {
    const int row = index[order ? order[i] : i];
    return (row < 0 ? none : row) >> shift & mask;
  }
};
struct Reorder {
  int* to;
  const int* from;

  __device__ void operator()(std::int64_t i, int place) const { to[place] = from ? from[i] : int(i); }
};

// y[r] += the rows of x whose index is r, in the order of N. `order` sorts N by index and is stable, so that they are
// neighbours there: the warp that meets the first of them adds them all, for one slice of the columns. Rows wait for
// their sum alone: many are on their way at a time, because a frequent word has thousands.
template <int P, class T>
__global__ void __launch_bounds__(kThreads, 3)
    add_rows_kernel(float* y_RD, const T* x_ND, const int* index, const int* order, std::int64_t rows, std::int64_t dim,
                    int slices) {
  constexpr int kAtOnce = 32 / int(sizeof(T)), kFew = 4;
  const int lane = lane_id();
  for (std::int64_t task = first_row(); task < rows * slices; task += row_stride()) {
    const std::int64_t first = task / slices, column = (task % slices * kWarpSize + lane) * P;
    const int row = index[order[first]];
    if (row < 0 || (first > 0 && index[order[first - 1]] == row)) continue;

    const bool inside = column < dim;
    const T* const x = x_ND + (inside ? column : 0);  // loads that depend on nothing are the soonest on their way
    float* const y = y_RD + row * dim + column;
    Elements<float, P> sum{};
    if (inside) sum = load<P>(y);
    int count = kWarpSize;
    for (std::int64_t next = first; count == kWarpSize; next += kWarpSize) {
      const int n = next + lane < rows ? order[next + lane] : -1;
      count = __popc(__ballot_sync(kAllLanes, n >= 0 && index[n] == row));
      const auto add = [&]<int most>(std::integral_constant<int, most>, int begin) {
        Elements<T, P> in[most];
#pragma unroll
        for (int j = 0; j < most; ++j) {
          const std::int64_t from = __shfl_sync(kAllLanes, n, min(begin + j, count - 1));
          in[j] = load<P>(x + from * dim);
        }
#pragma unroll
        for (int j = 0; j < most; ++j)
          if (begin + j < count)
#pragma unroll
            for (int p = 0; p < P; ++p) sum.v[p] += float(in[j].v[p]);
      };
      int begin = 0;
#pragma unroll 1
      for (; begin + kAtOnce <= count; begin += kAtOnce) add(std::integral_constant<int, kAtOnce>{}, begin);
#pragma unroll 1
      for (; begin < count; begin += kFew) add(std::integral_constant<int, kFew>{}, begin);
    }
    if (inside) store<P>(y, sum);
  }
}

template <int P, class T>
__global__ void combine_kernel(T* __restrict__ y_TD, const T* __restrict__ x_ND, const int* __restrict__ slot_TK,
                               const float* __restrict__ weight_TK, std::int64_t tokens, std::int64_t dim,
                               int choices) {
  for (std::int64_t t = first_row(); t < tokens; t += row_stride()) {
    const int* const slots = slot_TK + t * choices;
    for (std::int64_t i = lane_id() * P; i < dim; i += kWarpSize * P) {
      float sum[P] = {};
#pragma unroll 4
      for (int k = 0; k < choices; ++k) {
        const int slot = slots[k];
        if (slot < 0) continue;
        const float weight = weight_TK ? weight_TK[t * choices + k] : 1.0f;
        const Elements<T, P> x = load<P>(x_ND + slot * dim + i);
        for (int j = 0; j < P; ++j) sum[j] += weight * float(x.v[j]);
      }
      Elements<T, P> y;
      for (int j = 0; j < P; ++j) y.v[j] = T(sum[j]);
      store<P>(y_TD + t * dim + i, y);
    }
  }
}

// One pass over the tokens, whose dy stays near while each choice takes it; taken marks the rows of dx that have a
// slot.
template <int P, class T>
__global__ void combine_backward_kernel(T* __restrict__ dx_ND, float* dweight_TK, unsigned char* taken,
                                        const T* __restrict__ dy_TD, const T* __restrict__ x_ND, const int* slot_TK,
                                        const float* weight_TK, std::int64_t tokens, std::int64_t dim, int choices) {
  for (std::int64_t t = first_row(); t < tokens; t += row_stride()) {
    const T* const dy = dy_TD + t * dim;
    for (std::int64_t k = t * choices; k < (t + 1) * choices; ++k) {
      const int slot = slot_TK[k];
      float dot = 0;
      if (slot >= 0) {
        const float weight = weight_TK ? weight_TK[k] : 1.0f;
        const T* const x = x_ND + slot * dim;
        T* const dx = dx_ND + slot * dim;
#pragma unroll 2
        for (std::int64_t i = lane_id() * P; i < dim; i += kWarpSize * P) {
          const Elements<T, P> by = load<P>(dy + i);
          Elements<T, P> out;
          for (int j = 0; j < P; ++j) out.v[j] = T(weight * float(by.v[j]));
          if (dweight_TK) {
            const Elements<T, P> in = load<P>(x + i);
            for (int j = 0; j < P; ++j) dot += float(in.v[j]) * float(by.v[j]);
          }
          store<P>(dx + i, out);
        }
        if (lane_id() == 0) taken[slot] = 1;
      }
      if (!dweight_TK) continue;
      dot = warp_sum(dot);
      if (lane_id() == 0) dweight_TK[k] = dot;
    }
  }
}

template <int P, class T>
__global__ void clear_kernel(T* x_ND, const unsigned char* taken, std::int64_t rows, std::int64_t dim) {
  for (std::int64_t n = first_row(); n < rows; n += row_stride())
    if (!taken[n]) clear_row<P>(x_ND + n * dim, dim);
}

__global__ void scatter_ids_kernel(int* id_N, const int* x_TK, const int* slot_TK, std::int64_t count, int each) {
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += stride)
    if (slot_TK[i] >= 0) id_N[slot_TK[i]] = x_TK[i / each];
}

}  // namespace

void gather_rows(Tensor& y_ND, const Tensor& x_RD, const Tensor& index_N) {
  Context& on = context(y_ND.device());
  const std::int64_t rows = y_ND.dim(0), dim = y_ND.dim(1);
  dispatch_float(y_ND.dtype(), "gather_rows", [&](auto y_zero) {
    dispatch_float(x_RD.dtype(), "gather_rows", [&](auto x_zero) {
      using Y = decltype(y_zero);
      using X = decltype(x_zero);
      constexpr int kPack = 16 / int(std::max(sizeof(Y), sizeof(X)));
      Y* const y = ptr<Y>(y_ND);
      const X* const x = ptr<X>(x_RD);
      dispatch_width<kPack>(
          dim,
          [&](auto width) {
            launch(on, "gather_rows", gather_kernel<width(), Y, X>, grid_for(on, rows, kWarps), kThreads, 0, y, x,
                   ptr<std::int32_t>(index_N), rows, dim);
          },
          y, x);
    });
  });
}

void scatter_add_rows(Tensor& y_RD, const Tensor& x_ND, const Tensor& index_N) {
  const std::int64_t rows = x_ND.dim(0), dim = x_ND.dim(1);
  if (rows == 0) return;
  Context& on = context(y_RD.device());
  const int* const index = ptr<std::int32_t>(index_N);

  // A stable sort of N by index, least digit first, with digits of alike width.
  constexpr int kMostBits = 10;
  const int none = int(y_RD.dim(0)), bits = std::bit_width(unsigned(none)),
            passes = std::max(1, ceil_div(bits, kMostBits)), digit = ceil_div(bits, passes);
  const Chunks chunks(rows, std::int64_t{1} << digit);
  int* const orders = on.scratch<int>(2 * rows + chunks.keys + chunks.scratch());
  int* const totals = orders + 2 * rows;
  const int* order = nullptr;
  for (int pass = 0; pass < passes; ++pass) {
    int* const sorted = orders + pass % 2 * rows;
    group_stably(on, "scatter_add_rows", totals, totals + chunks.keys, chunks,
                 Digit{index, order, none, pass * digit, chunks.keys - 1}, 0, Reorder{sorted, order});
    order = sorted;
  }

  constexpr int kPack = 4;
  float* const y = ptr<float>(y_RD);
  dispatch_float(x_ND.dtype(), "scatter_add_rows", [&](auto zero) {
    using T = decltype(zero);
    const T* const x = ptr<T>(x_ND);
    dispatch_width<kPack>(
        dim,
        [&](auto width) {
          const std::int64_t slices = ceil_div(dim, std::int64_t{kWarpSize * width()});
          // As many blocks as there is work: the GPU gives the next one to whoever is free beside a long sum.
          launch(on, "scatter_add_rows", add_rows_kernel<width(), T>,
                 unsigned(std::min(ceil_div(rows * slices, std::int64_t{kWarps}), std::int64_t{1} << 30)), kThreads, 0,
                 y, x, index, order, rows, dim, slices);
        },
        y, x);
  });
}

void combine_rows(Tensor& y_TD, const Tensor& x_ND, const Tensor& slot_TK, const Tensor& weight_TK) {
  Context& on = context(y_TD.device());
  const std::int64_t tokens = slot_TK.dim(0), dim = y_TD.dim(1);
  dispatch_float(x_ND.dtype(), "combine_rows", [&](auto zero) {
    using T = decltype(zero);
    T* const y = ptr<T>(y_TD);
    const T* const x = ptr<T>(x_ND);
    dispatch_width<Pack<T>::size>(
        dim,
        [&](auto width) {
          launch(on, "combine_rows", combine_kernel<width(), T>, grid_for(on, tokens, kWarps), kThreads, 0, y, x,
                 ptr<std::int32_t>(slot_TK), ptr_or_null<float>(weight_TK), tokens, dim, slot_TK.dim(1));
        },
        y, x);
  });
}

void combine_rows_backward(Tensor& dx_ND, Tensor& dweight_TK, const Tensor& dy_TD, const Tensor& x_ND,
                           const Tensor& slot_TK, const Tensor& weight_TK) {
  Context& on = context(dx_ND.device());
  const std::int64_t tokens = slot_TK.dim(0), dim = dy_TD.dim(1), rows = dx_ND.dim(0);
  unsigned char* const taken = on.scratch<unsigned char>(rows);
  if (rows > 0) CUDA_CHECK(cudaMemsetAsync(taken, 0, std::size_t(rows), on.stream()));
  dispatch_float(dy_TD.dtype(), "combine_rows_backward", [&](auto zero) {
    using T = decltype(zero);
    T* const dx = ptr<T>(dx_ND);
    const T *const dy = ptr<T>(dy_TD), *const x = ptr_or_null<T>(x_ND);
    dispatch_width<Pack<T>::size>(
        dim,
        [&](auto width) {
          launch(on, "combine_rows_backward", combine_backward_kernel<width(), T>, grid_for(on, tokens, kWarps),
                 kThreads, 0, dx, ptr_or_null<float>(dweight_TK), taken, dy, x, ptr<std::int32_t>(slot_TK),
                 ptr_or_null<float>(weight_TK), tokens, dim, slot_TK.dim(1));
          launch(on, "combine_rows_backward", clear_kernel<width(), T>, grid_for(on, rows, kWarps), kThreads, 0, dx,
                 taken, rows, dim);
        },
        dx, dy, x);
  });
}

void scatter_ids(Tensor& id_N, const Tensor& x_TK, const Tensor& slot_TK) {
  Context& on = context(id_N.device());
  if (id_N.numel() > 0) CUDA_CHECK(cudaMemsetAsync(id_N.bytes(), 0xff, id_N.size_in_bytes(), on.stream()));  // -1
  launch(on, "scatter_ids", scatter_ids_kernel, grid_for(on, slot_TK.numel(), kThreads), kThreads, 0,
         ptr<std::int32_t>(id_N), ptr<std::int32_t>(x_TK), ptr<std::int32_t>(slot_TK), slot_TK.numel(),
         x_TK.dim(1) == 1 ? slot_TK.dim(1) : std::int64_t{1});
}

}  // namespace switchyard::cuda
