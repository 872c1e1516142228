#include "cuda/both.h"

namespace switchyard::test {
namespace {

constexpr Activation kKinds[] = {Activation::swiglu, Activation::geglu, Activation::gelu, Activation::relu};
constexpr DType kFloats[] = {DType::f32, DType::bf16};

// Both sides compute the function in f32 from the same input, with exponentials and quotients that differ by a few
// units in the last place and up to 20 roundings beside; the results, of size 10 at most, may then round to
// neighbouring values of bf16, up to 2^-7 apart.
double tolerance(DType dtype) { return dtype == DType::f32 ? 64 * 0x1p-24 : 0x1p-7; }

void check(Activation kind, DType dtype, std::int64_t rows, std::int64_t width, float scale = 3) {
  const std::int64_t x_width = is_gated(kind) ? 2 * width : width;
  const Both x = random_both({rows, x_width}, dtype, 1, scale), dy = random_both({rows, width}, dtype, 2);
  Both y = unwritten({rows, width}, dtype), dx = unwritten({rows, x_width}, dtype);
  compare({{"y", &y, tolerance(dtype)}}, [&](const Kernels& k, auto on) { k.activation(on(y), on(x), kind); });
  compare({{"dx", &dx, tolerance(dtype)}},
          [&](const Kernels& k, auto on) { k.activation_backward(on(dx), on(dy), on(x), kind); });
}

TEST(CudaActivation, EveryKindAtEveryWidth) {
  for (Activation kind : kKinds)
    for (DType dtype : kFloats) {
      check(kind, dtype, 0, 8);
      check(kind, dtype, 1, 1);
      check(kind, dtype, 3, 7);    // element by element
      check(kind, dtype, 5, 40);   // in packs
      check(kind, dtype, 2, 257);  // rows longer than a block
    }
}

// Two multiprocessors take 16 blocks of 256 threads: with 11 elements or 6 packs a row, a stride of the grid ends 4
// into a row, and some threads pass a row's end with it and others do not.
TEST(CudaActivation, MoreThanOneStrideOfTheGrid) {
  for (DType dtype : kFloats) {
    check(Activation::swiglu, dtype, 800, 11);
    check(Activation::swiglu, dtype, 1500, dtype == DType::f32 ? 24 : 48);
    check(Activation::gelu, dtype, 800, 11);
  }
}

TEST(CudaActivation, RowsThatStartBetweenSixteenBytes) {
  for (Activation kind : {Activation::geglu, Activation::relu}) {
    const std::int64_t x_width = is_gated(kind) ? 4 : 2;
    const Both x = random_both({9, x_width}, DType::bf16, 1), dy = random_both({9, 2}, DType::bf16, 2);
    Both y = unwritten({9, 2}, DType::bf16), dx = unwritten({9, x_width}, DType::bf16);
    const double close = tolerance(DType::bf16);
    compare({{"y", &y, close}, {"dx", &dx, close}}, [&](const Kernels& k, auto on) {
      Tensor y_part = on(y).rows(1, 9), dx_part = on(dx).rows(1, 9);
      k.activation(y_part, on(x).rows(1, 9), kind);
      k.activation_backward(dx_part, on(dy).rows(1, 9), on(x).rows(1, 9), kind);
    });
  }
}

// The exponential overflows on one side and vanishes on the other; a NaN stays one.
TEST(CudaActivation, FarOut) {
  for (Activation kind : kKinds) {
    check(kind, DType::f32, 4, 64, 300);
    const Both x = both(floats({1, 4}, {std::nanf(""), 200, 1, 1}));
    Both y = unwritten({1, is_gated(kind) ? 2 : 4}, DType::f32);
    compare({{"y", &y, tolerance(DType::f32)}}, [&](const Kernels& k, auto on) { k.activation(on(y), on(x), kind); });
  }
}

}  // namespace
}  // namespace switchyard::test
