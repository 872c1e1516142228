#include "cuda/both.h"

namespace switchyard::test {
namespace {

constexpr DType kFloats[] = {DType::f32, DType::bf16};
constexpr float kEps = 1e-5f;

// A sum over a row in another order: the roundings of n terms differ by up to sqrt(n) of 2^-24, and ten more follow.
// Results may then round to neighbouring values of bf16, up to 2^-7 apart.
double rounding(std::int64_t terms) { return (10 + std::sqrt(double(terms))) * 0x1p-24; }
double tolerance(DType dtype, std::int64_t terms) { return rounding(terms) + (dtype == DType::bf16 ? 0x1p-7 : 0); }

void check(DType dtype, std::int64_t rows, std::int64_t dim) {
  const Both x = random_both({rows, dim}, dtype, 1, 2), w = random_both({dim}, DType::f32, 2),
             dy = random_both({rows, dim}, dtype, 3);
  Both y = unwritten({rows, dim}, dtype), rstd = unwritten({rows}, DType::f32);
  compare({{"y", &y, tolerance(dtype, dim)}, {"rstd", &rstd, rounding(dim)}},
          [&](const Kernels& k, auto on) { k.rms_norm(on(y), on(rstd), on(x), on(w), kEps); });

  // dw sums terms of size 1 over the rows, up to their number where rstd is large (one column).
  rstd.gpu = to_device(rstd.cpu, kGpu);
  Both dx = unwritten({rows, dim}, dtype), dw = unwritten({dim}, DType::f32);
  compare({{"dx", &dx, tolerance(dtype, dim)}, {"dw", &dw, rounding(rows) * std::sqrt(double(rows) + 1)}},
          [&](const Kernels& k, auto on) { k.rms_norm_backward(on(dx), on(dw), on(dy), on(x), on(w), on(rstd)); });

  const Both b = random_both({rows, dim}, dtype, 4);
  Both sum = unwritten({rows, dim}, dtype);  // one rounding of the exact sum: the same bits
  compare({{"normed sum", &y, tolerance(dtype, dim)}, {"sum", &sum, 0}, {"its rstd", &rstd, rounding(dim)}},
          [&](const Kernels& k, auto on) { k.add_rms_norm(on(y), on(sum), on(rstd), on(x), on(b), on(w), kEps); });
  // dsum is the sum of two numbers that differ by the tolerance of dx, rounded once more.
  rstd.gpu = to_device(rstd.cpu, kGpu);
  const Both none;
  for (const Both* dskip : {&b, &none})
    compare({{"dsum", &dx, 2 * tolerance(dtype, dim)}, {"dw", &dw, rounding(rows) * std::sqrt(double(rows) + 1)}},
            [&](const Kernels& k, auto on) {
              k.add_rms_norm_backward(on(dx), on(dw), on(dy), on(*dskip), on(sum), on(w), on(rstd));
            });
}

TEST(CudaRmsNorm, FewRows) {
  for (DType dtype : kFloats)
    for (std::int64_t rows : {0, 1, 5})
      for (std::int64_t dim : {1, 7, 8, 33, 64, 200}) check(dtype, rows, dim);
}

// Four rows a block, eight blocks a multiprocessor, two multiprocessors: 64 rows a stride.
TEST(CudaRmsNorm, NarrowRowsBeyondOneStrideOfTheGrid) {
  for (DType dtype : kFloats) {
    check(dtype, 203, 16);
    check(dtype, 130, 9);
  }
}

// A block a row: 1096 elements are 5 warps of packs of bf16, 9 of f32; 7 blocks or less on each of 2 multiprocessors.
TEST(CudaRmsNorm, WideRowsBeyondOneStrideOfTheGrid) {
  for (DType dtype : kFloats) check(dtype, 37, 1096);
}

// More than 1024 threads take, forward (two packs each) and backward (one).
TEST(CudaRmsNorm, RowsWiderThanABlock) {
  check(DType::f32, 3, 2051);
  check(DType::bf16, 5, 1031);
  check(DType::f32, 3, 4 * 2100);
  check(DType::bf16, 5, 8 * 2077);
}

TEST(CudaRmsNorm, RowsThatStartBetweenSixteenBytes) {
  const std::int64_t dim = 4;
  const Both x = random_both({9, dim}, DType::bf16, 1), w = random_both({dim}, DType::f32, 2),
             dy = random_both({9, dim}, DType::bf16, 3);
  Both y = unwritten({9, dim}, DType::bf16), dx = unwritten({9, dim}, DType::bf16), rstd = unwritten({9}, DType::f32),
       dw = unwritten({dim}, DType::f32);
  const double close = tolerance(DType::bf16, dim);
  compare({{"y", &y, close}, {"rstd", &rstd, rounding(dim)}, {"dx", &dx, close}, {"dw", &dw, 3 * rounding(9)}},
          [&](const Kernels& k, auto on) {
            Tensor y_rows = on(y).rows(1, 9), dx_rows = on(dx).rows(1, 9), rstd_rows = on(rstd).rows(1, 9);
            k.rms_norm(y_rows, rstd_rows, on(x).rows(1, 9), on(w), kEps);
            k.rms_norm_backward(dx_rows, on(dw), on(dy).rows(1, 9), on(x).rows(1, 9), on(w), rstd_rows);
          });
  // Only the sum, then only dskip, lies between.
  Both sum = unwritten({9, dim}, DType::bf16);
  compare({{"sum", &sum, 0}, {"dsum", &dx, 2 * close}}, [&](const Kernels& k, auto on) {
    Tensor sum_rows = on(sum).rows(1, 9), y_rows = on(y).rows(0, 8), dx_rows = on(dx).rows(0, 8),
           rstd_rows = on(rstd).rows(0, 8);
    k.add_rms_norm(y_rows, sum_rows, rstd_rows, on(x).rows(0, 8), on(dy).rows(0, 8), on(w), kEps);
    k.add_rms_norm_backward(dx_rows, on(dw), on(dy).rows(0, 8), on(x).rows(1, 9), on(x).rows(0, 8), on(w), rstd_rows);
  });
}

TEST(CudaRmsNorm, ZerosAndLargeValues) {
  const Both x = both(floats({3, 2}, {0, 0, 1e18f, -1e18f, 1e-20f, 1})), w = both(floats({2}, {1, 1}));
  Both y = unwritten({3, 2}, DType::f32), rstd = unwritten({3}, DType::f32);
  compare({{"y", &y, rounding(2)}, {"rstd", &rstd, rounding(2)}},
          [&](const Kernels& k, auto on) { k.rms_norm(on(y), on(rstd), on(x), on(w), kEps); });
}

}  // namespace
}  // namespace switchyard::test
