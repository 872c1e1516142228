#include "cuda/both.h"

namespace switchyard::test {
namespace {

constexpr DType kFloats[] = {DType::f32, DType::bf16};
constexpr float kEps = 1e-6f;

struct Case {
  AttentionShape shape;
  float theta = 10000;
};

// The same angles, rounded to f32 alike; sines and cosines within 2 units in the last place, sums over a head in
// another order: sqrt(dim) roundings, and ten more. Results may then round to neighbouring values of bf16, up to 2^-7
// apart.
double rounding(std::int64_t terms) { return (16 + std::sqrt(double(terms))) * 0x1p-24; }
double tolerance(DType dtype, std::int64_t dim) { return rounding(dim) + (dtype == DType::bf16 ? 0x1p-7 : 0); }

void check(DType dtype, const Case& c, bool norm) {
  const AttentionShape shape = c.shape;
  const std::int64_t tokens = shape.tokens(), dim = shape.head_dim, heads = shape.n_heads + shape.n_kv_heads;
  const Both x = random_both({tokens, shape.width()}, dtype, 1), dy = random_both({tokens, shape.width()}, dtype, 2);
  Both wq, wk, rstd, dwq, dwk, none;
  if (norm) {
    wq = random_both({dim}, DType::f32, 3), wk = random_both({dim}, DType::f32, 4);
    rstd = unwritten({tokens, heads}, DType::f32);
    dwq = unwritten({dim}, DType::f32), dwk = unwritten({dim}, DType::f32);
  }
  const double close = tolerance(dtype, dim);
  Both y = unwritten({tokens, shape.width()}, dtype), dx = unwritten({tokens, shape.width()}, dtype);
  const auto forward = [&](const Kernels& k, auto on) {
    k.qk_norm_rope(on(y), on(rstd), on(x), on(wq), on(wk), kEps, shape, {c.theta});
  };
  const auto backward = [&](const Kernels& k, auto on) {
    k.qk_norm_rope_backward(on(dx), on(dwq), on(dwk), on(dy), norm ? on(x) : on(none), on(wq), on(wk), on(rstd), shape,
                            {c.theta});
  };
  if (!norm) {
    compare({{"y", &y, close}}, forward);
    compare({{"dx", &dx, close}}, backward);
    return;
  }
  compare({{"y", &y, close}, {"rstd", &rstd, rounding(dim)}}, forward);
  rstd.gpu = to_device(rstd.cpu, kGpu);
  // dwq and dwk are sums over all tokens and heads of terms of size 1, which leave sqrt(terms) of them.
  const double terms = double(tokens * shape.n_heads), sums = rounding(tokens * shape.n_heads) * std::sqrt(terms + 1);
  compare({{"dx", &dx, close}, {"dwq", &dwq, sums}, {"dwk", &dwk, sums}}, backward);
}

void check(const Case& c) {
  for (DType dtype : kFloats)
    for (bool norm : {false, true}) check(dtype, c, norm);
}

TEST(CudaRope, FewTokens) {
  check({{.batch = 0, .seq = 4, .n_heads = 2, .n_kv_heads = 1, .head_dim = 4}});
  check({{.batch = 1, .seq = 1, .n_heads = 1, .n_kv_heads = 1, .head_dim = 2}});
  check({{.batch = 2, .seq = 3, .n_heads = 4, .n_kv_heads = 2, .head_dim = 64}});
}

TEST(CudaRope, NoRotation) { check({{.batch = 2, .seq = 5, .n_heads = 2, .n_kv_heads = 1, .head_dim = 16}, 0}); }

// Heads whose halves are odd, no power of two in packs, one pack, and as wide as a warp in packs.
TEST(CudaRope, EveryWidthOfHead) {
  for (std::int64_t dim : {6, 10, 16, 48, 96, 256})
    check({{.batch = 1, .seq = 5, .n_heads = 3, .n_kv_heads = 1, .head_dim = dim}});
}

// More chunks in half a head than lanes in a warp, in single elements and in packs.
TEST(CudaRope, HeadsWiderThanAWarp) {
  check({{.batch = 1, .seq = 9, .n_heads = 2, .n_kv_heads = 1, .head_dim = 134}});
  check({{.batch = 1, .seq = 9, .n_heads = 2, .n_kv_heads = 1, .head_dim = 1040}});
}

// Two multiprocessors of four blocks of eight tokens take 64 at a time, half as many backward.
TEST(CudaRope, MoreTokensThanOneStrideOfTheGrid) {
  check({{.batch = 3, .seq = 47, .n_heads = 4, .n_kv_heads = 2, .head_dim = 32}, 1e6f});
}

// Angles of 60,000 radians: one unit in the last place of a frequency would show as 0.002.
TEST(CudaRope, LongSequences) {
  const AttentionShape shape{.batch = 1, .seq = 60'000, .n_heads = 1, .n_kv_heads = 0, .head_dim = 8};
  const Both x = random_both({shape.tokens(), shape.width()}, DType::f32, 1);
  Both y = unwritten(x.cpu.shape(), DType::f32), none;
  compare({{"y", &y, rounding(8)}}, [&](const Kernels& k, auto on) {
    k.qk_norm_rope(on(y), on(none), on(x), on(none), on(none), kEps, shape, {.theta = 10});
  });
}

TEST(CudaRope, ValuesPassAndPositionZeroToo) {
  const AttentionShape shape{.batch = 2, .seq = 3, .n_heads = 2, .n_kv_heads = 1, .head_dim = 16};
  const Both x = random_both({6, shape.width()}, DType::bf16, 1);
  Both y = unwritten({6, shape.width()}, DType::bf16), none;
  kernels(kGpu).qk_norm_rope(y.gpu, none.gpu, x.gpu, none.gpu, none.gpu, kEps, shape, {});
  const Tensor host = to_device(y.gpu, Device{});
  for (std::int64_t t = 0; t < 6; ++t)
    for (std::int64_t i = t % 3 == 0 ? 0 : 48; i < shape.width(); ++i)
      EXPECT_EQ(at(host, t * shape.width() + i), at(x.cpu, t * shape.width() + i));
}

TEST(CudaRope, RowsThatStartBetweenSixteenBytes) {
  const AttentionShape shape{.batch = 1, .seq = 4, .n_heads = 2, .n_kv_heads = 1, .head_dim = 4};
  const Both x = random_both({5, shape.width()}, DType::bf16, 1), wq = random_both({4}, DType::f32, 2);
  Both y = unwritten({5, shape.width()}, DType::bf16), rstd = unwritten({4, 3}, DType::f32);
  compare({{"y", &y, tolerance(DType::bf16, 4)}, {"rstd", &rstd, rounding(4)}}, [&](const Kernels& k, auto on) {
    Tensor y_rows = on(y).rows(1, 5);
    k.qk_norm_rope(y_rows, on(rstd), on(x).rows(1, 5), on(wq), on(wq), kEps, shape, {});
  });
}

}  // namespace
}  // namespace switchyard::test
