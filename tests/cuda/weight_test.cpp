#include "cuda/both.h"

namespace switchyard::test {
namespace {

constexpr DType kFloats[] = {DType::f32, DType::bf16};

struct BothWeights {
  Weight cpu, gpu;
};
BothWeights both_weights(const Both& master, DType dtype) {
  return {make_weight(master.cpu, dtype), make_weight(master.gpu, dtype)};
}

// As for matmul: (k + 2) 2^-24 of sum |x w| < k on each device, and neighbours where results round to bf16.
double tolerance(std::int64_t k, DType out) {
  return 2.0 * static_cast<double>((k + 2) * k) * 0x1p-24 + (out == DType::bf16 ? 0x1p-7 : 0);
}

void expect_products(const BothWeights& w, std::int64_t out, std::int64_t in, std::int64_t rows, DType dtype) {
  const Both x = random_both({rows, in}, dtype, 2), dy = random_both({rows, out}, dtype, 3);
  for (DType result : {dtype, DType::f32}) {
    Both y = unwritten({rows, out}, result), dx = unwritten({rows, in}, result);
    compare({{"y", &y, tolerance(in, result)}, {"dx", &dx, tolerance(out, result)}}, [&](const Kernels& k, auto on) {
      k.weight_matmul(on(y), on(x), on(w), Trans::yes);
      k.weight_matmul(on(dx), on(dy), on(w), Trans::no);
    });
  }
}

TEST(CudaWeight, MultipliesInBothDirections) {
  for (DType dtype : kFloats)
    for (std::int64_t out : {1, 17, 64})
      for (std::int64_t in : {3, 40}) {
        const BothWeights w = both_weights(random_both({out, in}, DType::f32, 1), dtype);
        for (std::int64_t rows : {0, 1, 33}) expect_products(w, out, in, rows, dtype);
      }
}

// The bf16 copy is the master's rounding, remade on the GPU, and nothing beside it; in f32 it is the master.
TEST(CudaWeight, HoldsThePlainMatrix) {
  for (Shape shape : {Shape{0, 5}, Shape{1, 1}, Shape{37, 53}, Shape{3, 7, 40}}) {
    const Both first = random_both(shape, DType::f32, 1), master = random_both(shape, DType::f32, 2);
    Weight w = make_weight(first.gpu, DType::bf16);
    kernels(kGpu).pack(w, master.gpu);
    EXPECT_FALSE(w.forward || w.backward);
    const Tensor plain = to_device(w.plain, Device{}), rounded = cast(master.cpu, DType::bf16);
    ASSERT_EQ(plain.shape(), shape);
    EXPECT_EQ(std::memcmp(plain.bytes(), rounded.bytes(), plain.size_in_bytes()), 0);
    EXPECT_EQ(make_weight(master.gpu, DType::f32).plain.bytes(), master.gpu.bytes());
  }
}

TEST(CudaWeight, FollowsItsMasterAfterRefresh) {
  const Both before = random_both({24, 18}, DType::f32, 1), after = random_both({24, 18}, DType::f32, 7);
  BothWeights w = both_weights(before, DType::bf16);
  refresh(w.cpu, after.cpu);
  refresh(w.gpu, after.gpu);
  expect_products(w, 24, 18, 9, DType::bf16);
}

}  // namespace
}  // namespace switchyard::test
