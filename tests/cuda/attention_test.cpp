#include "cuda/both.h"

namespace switchyard::test {
namespace {

// What the elements of a test's tensors may differ by, relative to max(1, |expected|); inputs are below 1.
struct Tolerance {
  double y, lse, dqkv, dbias, mean_square;
};

// lse, and all of f32: sums of up to 256 terms of size 1, in another order, with 2^-24 each, or 2^-23 where a tensor
// core cuts them off; exponentials within 2^-22; divided by sqrt(head_dim) or by a sum of probabilities, well below
// 2^-16.
// bf16: both sides round probabilities to bf16 before they multiply (by 2^-9 of themselves; the GPU's relative to
// another maximum, or not at all where it has no tensor cores), and their results by as much again. y: sums of
// probabilities are 1, so that both together stay below 2 (2^-9 + 2^-9). dqkv: the probabilities that meet in dv add up
// to the sum of 1 / i over all queries i in the first row, 5 for 150, and as much again by chance: 2^-5.
// dbias: sums of differences that cancel. A row's would be 0 but for y's rounding, which is what the sums of rows
// differ by where they go to the last bucket in other ways: 2^-10 |dy y|, below 1, for each of 200 queries by chance.
// These bounds of a single element would hide a missing key. The differences are independent, though, and 2^-10.3 in
// the mean square for each of four roundings: their root mean square beside that of the values stays below 2^-8, far
// from the 2^-4 that one key of 150 would make.
Tolerance tolerance(DType dtype) {
  constexpr double kSum = 0x1p-16;
  return dtype == DType::f32 ? Tolerance{kSum, kSum, kSum, kSum, kSum}
                             : Tolerance{0x1p-7, kSum, 0x1p-5, 0x1p-5, 0x1p-8};
}

void expect_mean_square(const Both& x, double tolerance, const char* name) {
  const Tensor host = to_device(x.gpu, Device{});
  double error = 0, size = 0;
  for (std::int64_t i = 0; i < host.numel(); ++i) {
    error += std::pow(at(host, i) - at(x.cpu, i), 2);
    size += std::pow(at(x.cpu, i), 2);
  }
  EXPECT_LE(std::sqrt(error), tolerance * std::sqrt(size)) << name;
}

void check(DType dtype, AttentionShape s, RelativeBuckets buckets = {}) {
  SCOPED_TRACE(testing::Message() << name_of(dtype) << " batch " << s.batch << " seq " << s.seq << " heads "
                                  << s.n_heads << " on " << s.n_kv_heads << " of " << s.head_dim << ", "
                                  << buckets.count << " buckets up to " << buckets.max_distance);
  const Tolerance close = tolerance(dtype);
  const Shape y_shape{s.tokens(), s.n_heads * s.head_dim};
  const Both qkv = random_both({s.tokens(), s.width()}, dtype, 1), dy = random_both(y_shape, dtype, 2);
  const Shape bias_shape{s.n_heads, buckets.count};
  const bool biased = buckets.count > 0;
  const Both bias = biased ? random_both(bias_shape, DType::f32, 3) : Both{};
  Both y = unwritten(y_shape, dtype), lse = unwritten({s.batch, s.n_heads, s.seq}, DType::f32);
  compare({{"y", &y, close.y}, {"lse", &lse, close.lse}},
          [&](const Kernels& k, auto on) { k.attention(on(y), on(lse), on(qkv), on(bias), s, buckets); });
  expect_mean_square(y, close.mean_square, "y");

  // From the same y and lse.
  y.gpu = to_device(y.cpu, kGpu);
  lse.gpu = to_device(lse.cpu, kGpu);
  Both dqkv = unwritten({s.tokens(), s.width()}, dtype), dbias = biased ? unwritten(bias_shape, DType::f32) : Both{};
  const auto backward = [&](const Kernels& k, auto on) {
    k.attention_backward(on(dqkv), on(dbias), on(dy), on(qkv), on(bias), on(y), on(lse), s, buckets);
  };
  if (biased)
    compare({{"dqkv", &dqkv, close.dqkv}, {"dbias", &dbias, close.dbias}}, backward);
  else
    compare({{"dqkv", &dqkv, close.dqkv}}, backward);
  expect_mean_square(dqkv, close.mean_square, "dqkv");
}

TEST(CudaAttention, TensorCoresOnWholeAndPartTiles) {
  for (std::int64_t head_dim : {64, 128})
    for (std::int64_t seq : {1, 31, 64, 65, 128, 145})
      check(DType::bf16, {.batch = 1, .seq = seq, .n_heads = 1, .n_kv_heads = 1, .head_dim = head_dim});
}

TEST(CudaAttention, TensorCoresWithSharedKeys) {
  check(DType::bf16, {.batch = 2, .seq = 70, .n_heads = 4, .n_kv_heads = 2, .head_dim = 64});
  check(DType::bf16, {.batch = 1, .seq = 140, .n_heads = 3, .n_kv_heads = 1, .head_dim = 64});
  check(DType::bf16, {.batch = 2, .seq = 33, .n_heads = 2, .n_kv_heads = 1, .head_dim = 128});
}

TEST(CudaAttention, AnyWidthOfAHead) {
  for (DType dtype : {DType::f32, DType::bf16})
    for (std::int64_t head_dim : {1, 17, 40, 65, 130, 256})
      check(dtype, {.batch = 1, .seq = 37, .n_heads = 2, .n_kv_heads = 1, .head_dim = head_dim});
}

TEST(CudaAttention, SinglePrecision) {
  for (std::int64_t seq : {1, 32, 33, 100})
    check(DType::f32, {.batch = 2, .seq = seq, .n_heads = 4, .n_kv_heads = 2, .head_dim = 16});
  for (std::int64_t head_dim : {64, 128})
    check(DType::f32, {.batch = 1, .seq = 50, .n_heads = 2, .n_kv_heads = 2, .head_dim = head_dim});
}

constexpr RelativeBuckets kFew{.count = 8, .max_distance = 32}, kT5{.count = 32, .max_distance = 128};

// The last bucket begins at distance 20, so that tiles lie before, across and beyond it.
TEST(CudaAttention, TensorCoresWithABiasByDistance) {
  for (std::int64_t head_dim : {64, 128}) {
    check(DType::bf16, {.batch = 1, .seq = 145, .n_heads = 1, .n_kv_heads = 1, .head_dim = head_dim}, kFew);
    check(DType::bf16, {.batch = 2, .seq = 33, .n_heads = 2, .n_kv_heads = 1, .head_dim = head_dim}, kFew);
  }
  for (std::int64_t seq : {1, 20})
    check(DType::bf16, {.batch = 1, .seq = seq, .n_heads = 1, .n_kv_heads = 1, .head_dim = 64}, kFew);
  check(DType::bf16, {.batch = 1, .seq = 130, .n_heads = 1, .n_kv_heads = 1, .head_dim = 64}, kT5);
}

TEST(CudaAttention, AnyWidthOfAHeadWithABiasByDistance) {
  for (DType dtype : {DType::f32, DType::bf16})
    for (std::int64_t head_dim : {17, 65, 256})
      check(dtype, {.batch = 1, .seq = 37, .n_heads = 2, .n_kv_heads = 1, .head_dim = head_dim}, kFew);
  for (std::int64_t seq : {1, 32, 100})
    check(DType::f32, {.batch = 2, .seq = seq, .n_heads = 4, .n_kv_heads = 2, .head_dim = 16}, kFew);
  check(DType::f32, {.batch = 1, .seq = 150, .n_heads = 1, .n_kv_heads = 1, .head_dim = 8}, kT5);
}

TEST(CudaAttention, NoSequences) {
  for (DType dtype : {DType::f32, DType::bf16})
    for (std::int64_t head_dim : {8, 64})
      for (const RelativeBuckets& buckets : {RelativeBuckets{}, kFew}) {
        check(dtype, {.batch = 0, .seq = 16, .n_heads = 2, .n_kv_heads = 1, .head_dim = head_dim}, buckets);
        check(dtype, {.batch = 2, .seq = 0, .n_heads = 2, .n_kv_heads = 1, .head_dim = head_dim}, buckets);
      }
}

// Scores of thousands: the largest probability of a row is nearly 1 and the others 0. The scores' own rounding, 2^-24
// of thousands in either order of summation, moves probabilities by 2^-11 at most, and ties within it are rare.
TEST(CudaAttention, ScoresFarBeyondTheRangeOfExp) {
  for (const auto& [dtype, head_dim] : {std::pair{DType::f32, 16}, {DType::bf16, 64}, {DType::bf16, 128}}) {
    const AttentionShape s{.batch = 1, .seq = 80, .n_heads = 1, .n_kv_heads = 1, .head_dim = head_dim};
    const Shape y_shape{s.seq, s.head_dim};
    const Both qkv = random_both({s.seq, s.width()}, dtype, 1, 100), dy = random_both(y_shape, dtype, 2);
    Both y = unwritten(y_shape, dtype), lse = unwritten({1, 1, s.seq}, DType::f32);
    compare({{"y", &y, 0x1p-6}, {"lse", &lse, 0x1p-20}},
            [&](const Kernels& k, auto on) { k.attention(on(y), on(lse), on(qkv), {}, s, {}); });
    y.gpu = to_device(y.cpu, kGpu);
    lse.gpu = to_device(lse.cpu, kGpu);
    Both dqkv = unwritten({s.seq, s.width()}, dtype), none;
    kernels(kGpu).attention_backward(dqkv.gpu, none.gpu, dy.gpu, qkv.gpu, {}, y.gpu, lse.gpu, s, {});
    const Tensor host = to_device(dqkv.gpu, Device{});
    for (std::int64_t i = 0; i < host.numel(); ++i) ASSERT_TRUE(std::isfinite(at(host, i))) << i;
  }
}

}  // namespace
}  // namespace switchyard::test
