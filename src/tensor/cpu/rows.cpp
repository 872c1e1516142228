#include <omp.h>

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/simd.h"

namespace switchyard::cpu {

void gather_rows(Tensor& y_ND, const Tensor& x_RD, const Tensor& index_N) {
  const std::int64_t rows = y_ND.dim(0), dim = y_ND.dim(1);
  const std::int32_t* index = index_N.data<std::int32_t>();
  with_row_type(y_ND.dtype(), [&](auto y_type) {
    with_row_type(x_RD.dtype(), [&](auto x_type) {
      using Y = decltype(y_type);
      using X = decltype(x_type);
      Y* ys = y_ND.data<Y>();
      const X* xs = x_RD.data<X>();
#pragma omp parallel for schedule(static) if (rows * dim > kParallelElements)
      for (std::int64_t n = 0; n < rows; ++n) {
        Y* y = ys + n * dim;
        if (index[n] < 0)
          std::memset(y, 0, static_cast<std::size_t>(dim) * sizeof(Y));
        else if constexpr (std::is_same_v<X, Y>)
          std::memcpy(y, xs + index[n] * dim, static_cast<std::size_t>(dim) * sizeof(Y));
        else
          convert_row(y, xs + index[n] * dim, dim);
      }
    });
  });
}

// Threads share the work as strips of columns, and where rows are too narrow for that also by destination (index modulo
// `lanes`): in either case every element of y meets its rows in the order of N.
void scatter_add_rows(Tensor& y_RD, const Tensor& x_ND, const Tensor& index_N) {
  constexpr std::int64_t kStrip = 256;
  const std::int64_t rows = x_ND.dim(0), dim = x_ND.dim(1);
  const std::int32_t* index = index_N.data<std::int32_t>();
  float* ys = y_RD.data<float>();
  const std::int64_t threads = rows * dim > kParallelElements ? omp_get_max_threads() : 1;
  const std::int64_t strips = std::clamp<std::int64_t>(dim / kStrip, 1, threads), lanes = threads / strips;
  with_row_type(x_ND.dtype(), [&](auto type) {
    using T = decltype(type);
    const T* xs = x_ND.data<T>();
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (std::int64_t task = 0; task < strips * lanes; ++task) {
      const std::int64_t begin = dim * (task % strips) / strips, end = dim * (task % strips + 1) / strips;
      for (std::int64_t n = 0; n < rows; ++n) {
        if (index[n] < 0 || index[n] % lanes != task / strips) continue;
        float* y = ys + index[n] * dim;
        const T* x = xs + n * dim;
#pragma omp simd
        for (std::int64_t i = begin; i < end; ++i) y[i] += to_float(x[i]);
      }
    }
  });
}

void combine_rows(Tensor& y_TD, const Tensor& x_ND, const Tensor& slot_TK, const Tensor& weight_TK) {
  constexpr std::int64_t kStrip = 128;  // columns whose sums fit into registers and the nearest cache
  const std::int64_t tokens = slot_TK.dim(0), choices = slot_TK.dim(1), dim = y_TD.dim(1);
  const std::int32_t* slots = slot_TK.data<std::int32_t>();
  const float* weights = weight_TK ? weight_TK.data<float>() : nullptr;
  with_row_type(x_ND.dtype(), [&](auto type) {
    using T = decltype(type);
    const T* xs = x_ND.data<T>();
    T* ys = y_TD.data<T>();
#pragma omp parallel for schedule(static) if (tokens * choices * dim > kParallelElements)
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t begin = 0; begin < dim; begin += kStrip) {
        const std::int64_t width = std::min(kStrip, dim - begin);
        float sum[kStrip] = {};
        for (std::int64_t k = t * choices; k < (t + 1) * choices; ++k) {
          if (slots[k] < 0) continue;
          const T* x = xs + slots[k] * dim + begin;
          const float weight = weights ? weights[k] : 1.0f;
#pragma omp simd
          for (std::int64_t i = 0; i < width; ++i) sum[i] += weight * to_float(x[i]);
        }
        convert_row(ys + t * dim + begin, sum, width);
      }
    }
  });
}

void combine_rows_backward(Tensor& dx_ND, Tensor& dweight_TK, const Tensor& dy_TD, const Tensor& x_ND,
                           const Tensor& slot_TK, const Tensor& weight_TK) {
  const std::int64_t tokens = slot_TK.dim(0), choices = slot_TK.dim(1), dim = dy_TD.dim(1), rows = dx_ND.dim(0);
  const std::int32_t* slots = slot_TK.data<std::int32_t>();
  const float* weights = weight_TK ? weight_TK.data<float>() : nullptr;
  float* dweights = dweight_TK ? dweight_TK.data<float>() : nullptr;

  std::vector<char> has_slot(static_cast<std::size_t>(rows));
  for (std::int64_t k = 0; k < tokens * choices; ++k)
    if (slots[k] >= 0) has_slot[static_cast<std::size_t>(slots[k])] = 1;

  with_row_type(dy_TD.dtype(), [&](auto type) {
    using T = decltype(type);
    const T* dys = dy_TD.data<T>();
    const T* xs = dweights ? x_ND.data<T>() : nullptr;
    T* dxs = dx_ND.data<T>();
#pragma omp parallel if (tokens * choices * dim > kParallelElements)
    {
#pragma omp for schedule(static) nowait
      for (std::int64_t n = 0; n < rows; ++n)
        if (!has_slot[static_cast<std::size_t>(n)])
          std::memset(dxs + n * dim, 0, static_cast<std::size_t>(dim) * sizeof(T));
#pragma omp for schedule(static)
      for (std::int64_t t = 0; t < tokens; ++t) {
        const T* dy = dys + t * dim;
        for (std::int64_t k = t * choices; k < (t + 1) * choices; ++k) {
          const bool kept = slots[k] >= 0;
          if (kept) {
            T* dx = dxs + slots[k] * dim;
            const float weight = weights ? weights[k] : 1.0f;
#pragma omp simd
            for (std::int64_t i = 0; i < dim; ++i) dx[i] = from_float<T>(weight * to_float(dy[i]));
          }
          if (dweights) {
            const T* x = kept ? xs + slots[k] * dim : nullptr;
            dweights[k] = kept ? sum_over(dim, [=](std::int64_t i) { return to_float(x[i]) * to_float(dy[i]); }) : 0.0f;
          }
        }
      }
    }
  });
}

void scatter_ids(Tensor& id_N, const Tensor& x_TK, const Tensor& slot_TK) {
  const std::int64_t choices = slot_TK.dim(1), each = x_TK.dim(1) == 1 ? choices : 1;
  const std::int32_t *x = x_TK.data<std::int32_t>(), *slot = slot_TK.data<std::int32_t>();
  std::int32_t* id = id_N.data<std::int32_t>();
  std::fill_n(id, id_N.numel(), -1);
  for (std::int64_t i = 0; i < slot_TK.numel(); ++i)
    if (slot[i] >= 0) id[slot[i]] = x[i / each];
}

}  // namespace switchyard::cpu
