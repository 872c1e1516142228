#include <cmath>

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/row_blocks.h"
#include "tensor/cpu/simd.h"

namespace switchyard::cpu {
namespace {

// y = rms_norm(x), where row(type, r) gives the r-th row of x.
template <class Row>
void norm_rows(Tensor& y_RD, Tensor& rstd_R, const Tensor& w_D, float eps, Row row) {
  const std::int64_t rows = y_RD.dim(0), dim = y_RD.dim(1);
  const float* w = w_D.data<float>();
  float* rstd = rstd_R.data<float>();
  with_row_type(y_RD.dtype(), [&](auto type) {
    using T = decltype(type);
    T* ys = y_RD.data<T>();
#pragma omp parallel for schedule(static) if (rows * dim > kParallelElements)
    for (std::int64_t r = 0; r < rows; ++r) {
      const T* x = row(type, r);
      T* y = ys + r * dim;
      const float square_sum = sum_over(dim, [=](std::int64_t i) { return to_float(x[i]) * to_float(x[i]); });
      const float s = 1.0f / std::sqrt(square_sum / static_cast<float>(dim) + eps);
#pragma omp simd
      for (std::int64_t i = 0; i < dim; ++i) y[i] = from_float<T>(to_float(x[i]) * s * w[i]);
      rstd[r] = s;
    }
  });
}

// y[0, n) = a + b
template <class T>
void add_row(T* y, const T* a, const T* b, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) y[i] = from_float<T>(to_float(a[i]) + to_float(b[i]));
}

}  // namespace

void rms_norm(Tensor& y_RD, Tensor& rstd_R, const Tensor& x_RD, const Tensor& w_D, float eps) {
  const std::int64_t dim = x_RD.dim(1);
  norm_rows(y_RD, rstd_R, w_D, eps, [&](auto type, std::int64_t r) { return x_RD.data<decltype(type)>() + r * dim; });
}

void add_rms_norm(Tensor& y_RD, Tensor& sum_RD, Tensor& rstd_R, const Tensor& a_RD, const Tensor& b_RD,
                  const Tensor& w_D, float eps) {
  const std::int64_t dim = a_RD.dim(1);
  norm_rows(y_RD, rstd_R, w_D, eps, [&](auto type, std::int64_t r) {
    using T = decltype(type);
    T* sum = sum_RD.data<T>() + r * dim;
    add_row(sum, a_RD.data<T>() + r * dim, b_RD.data<T>() + r * dim, dim);
    return sum;
  });
}

void rms_norm_backward(Tensor& dx_RD, Tensor& dw_D, const Tensor& dy_RD, const Tensor& x_RD, const Tensor& w_D,
                       const Tensor& rstd_R) {
  add_rms_norm_backward(dx_RD, dw_D, dy_RD, {}, x_RD, w_D, rstd_R);
}

// With n = x rstd:  dw = sum_r dy n,  dx = rstd (w dy - n mean(w dy n)) + dskip
void add_rms_norm_backward(Tensor& dx_RD, Tensor& dw_D, const Tensor& dy_RD, const Tensor& dskip_RD, const Tensor& x_RD,
                           const Tensor& w_D, const Tensor& rstd_R) {
  const std::int64_t rows = x_RD.dim(0), dim = x_RD.dim(1);
  const float* w = w_D.data<float>();
  const float* rstd = rstd_R.data<float>();
  RowBlocks blocks(rows, dim);
  with_row_type(x_RD.dtype(), [&](auto type) {
    using T = decltype(type);
    const T *xs = x_RD.data<T>(), *dys = dy_RD.data<T>();
    T* dxs = dx_RD.data<T>();
#pragma omp parallel for schedule(static) if (rows * dim > kParallelElements)
    for (std::int64_t block = 0; block < blocks.count(); ++block) {
      float* dw = blocks.part(block);
      for (std::int64_t r = blocks.begin(block); r < blocks.end(block); ++r) {
        const T *x = xs + r * dim, *dy = dys + r * dim;
        T* dx = dxs + r * dim;
        const float s = rstd[r];
        const float dot = sum_over(dim, [=](std::int64_t i) { return w[i] * to_float(dy[i]) * to_float(x[i]); });
        const float mean = dot * s / static_cast<float>(dim);
#pragma omp simd
        for (std::int64_t i = 0; i < dim; ++i) {
          const float n = to_float(x[i]) * s, g = to_float(dy[i]);
          dw[i] += g * n;
          dx[i] = from_float<T>(s * (w[i] * g - n * mean));
        }
        if (dskip_RD) add_row(dx, dx, dskip_RD.data<T>() + r * dim, dim);
      }
    }
  });
  blocks.total(dw_D.data<float>(), 0, dim);
}

}  // namespace switchyard::cpu
