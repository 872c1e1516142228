#include <gtest/gtest.h>

#include "kernel_check.h"

namespace switchyard {
namespace {

using test::at, test::expect_values, test::poisoned, test::random, test::random_rows, test::rounding;

const Kernels& k = kernels(Device{});
constexpr float kEps = 1e-6f;

struct Case {
  AttentionShape shape;
  DType dtype;
  bool norm;
  float theta = 10000;
};

// The definition for one head of one token, in double: norm, then rotation. `heads` counts queries, keys and values.
struct Definition {
  const Tensor &x, &wq, &wk;
  Case c;

  std::int64_t head_of(std::int64_t i) const { return i % c.shape.width() / c.shape.head_dim; }
  bool is_value(std::int64_t i) const { return head_of(i) >= c.shape.n_heads + c.shape.n_kv_heads; }
  const Tensor& weight_of(std::int64_t i) const { return head_of(i) < c.shape.n_heads ? wq : wk; }
  double rstd(std::int64_t i) const {
    double squares = 0;
    const std::int64_t first = i - i % c.shape.head_dim;
    for (std::int64_t d = 0; d < c.shape.head_dim; ++d) squares += at(x, first + d) * at(x, first + d);
    return 1 / std::sqrt(squares / static_cast<double>(c.shape.head_dim) + kEps);
  }
  double normed(std::int64_t i) const {
    return c.norm ? at(x, i) * rstd(i) * at(weight_of(i), i % c.shape.head_dim) : at(x, i);
  }
  double angle(std::int64_t i) const {
    const auto position = static_cast<double>(i / c.shape.width() % c.shape.seq);
    const auto pair = static_cast<double>(i % c.shape.head_dim % (c.shape.head_dim / 2));
    if (c.theta == 0) return 0;
    return position * std::pow(c.theta, -2 * pair / static_cast<double>(c.shape.head_dim));
  }
  // The partner of element i under rotate_half, and its sign.
  std::int64_t partner(std::int64_t i) const {
    const std::int64_t half = c.shape.head_dim / 2;
    return i % c.shape.head_dim < half ? i + half : i - half;
  }
  double sign(std::int64_t i) const { return i % c.shape.head_dim < c.shape.head_dim / 2 ? -1 : 1; }

  double y(std::int64_t i) const {
    if (is_value(i)) return at(x, i);
    return normed(i) * std::cos(angle(i)) + sign(i) * normed(partner(i)) * std::sin(angle(i));
  }
  // dnormed: the transpose of the rotation.
  double g(const Tensor& dy, std::int64_t i) const {
    return at(dy, i) * std::cos(angle(i)) - sign(i) * at(dy, partner(i)) * std::sin(angle(i));
  }
  double dx(const Tensor& dy, std::int64_t i) const {
    if (is_value(i)) return at(dy, i);
    if (!c.norm) return g(dy, i);
    const std::int64_t dim = c.shape.head_dim, first = i - i % dim;
    const double s = rstd(i);
    double sum = 0;
    for (std::int64_t j = first; j < first + dim; ++j)
      sum += g(dy, j) * at(weight_of(i), j % dim) *
             ((i == j ? s : 0) - at(x, j) * at(x, i) * s * s * s / static_cast<double>(dim));
    return sum;
  }
  double dw(const Tensor& dy, std::int64_t d, bool queries) const {
    double sum = 0;
    for (std::int64_t i = 0; i < x.numel(); ++i)
      if (!is_value(i) && i % c.shape.head_dim == d && (head_of(i) < c.shape.n_heads) == queries)
        sum += g(dy, i) * at(x, i) * rstd(i);
    return sum;
  }
};

class QkNormRope : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(
    Shapes, QkNormRope,
    testing::Values(
        Case{{.batch = 2, .seq = 5, .n_heads = 4, .n_kv_heads = 2, .head_dim = 8}, DType::f32, true},
        Case{{.batch = 1, .seq = 1, .n_heads = 1, .n_kv_heads = 1, .head_dim = 2}, DType::f32, true},
        Case{{.batch = 0, .seq = 4, .n_heads = 2, .n_kv_heads = 1, .head_dim = 4}, DType::f32, true},
        Case{{.batch = 2, .seq = 9, .n_heads = 3, .n_kv_heads = 3, .head_dim = 6}, DType::f32, false},
        Case{{.batch = 3, .seq = 50, .n_heads = 4, .n_kv_heads = 1, .head_dim = 64}, DType::bf16, true},
        Case{{.batch = 2, .seq = 7, .n_heads = 2, .n_kv_heads = 2, .head_dim = 10}, DType::bf16, false, 1e6f},
        Case{{.batch = 2, .seq = 6, .n_heads = 2, .n_kv_heads = 1, .head_dim = 8}, DType::f32, true, 0},
        Case{{.batch = 1, .seq = 100, .n_heads = 2, .n_kv_heads = 2, .head_dim = 16}, DType::f32, true, 1e6f}));

TEST_P(QkNormRope, MatchesTheDefinition) {
  const Case c = GetParam();
  const std::int64_t tokens = c.shape.tokens(), dim = c.shape.head_dim, heads = c.shape.n_heads + c.shape.n_kv_heads;
  const Tensor x = random_rows({tokens, c.shape.width()}, c.dtype, 1, 2);
  const Tensor dy = random_rows({tokens, c.shape.width()}, c.dtype, 2);
  const Tensor wq = c.norm ? random({dim}, 3) : Tensor{}, wk = c.norm ? random({dim}, 4) : Tensor{};
  const Definition definition{x, wq, wk, c};
  // The angle is rounded to f32: cos and sin are off by up to position 2^-24 beside the usual roundings.
  const double steps = 32 + static_cast<double>(c.shape.seq);

  Tensor y = poisoned(x.shape(), c.dtype), rstd = c.norm ? poisoned({tokens, heads}, DType::f32) : Tensor{};
  k.qk_norm_rope(y, rstd, x, wq, wk, kEps, c.shape, {c.theta});
  expect_values(
      y, [&](auto i) { return definition.y(i); }, rounding(c.dtype, steps), c.dtype == DType::f32 ? 1 : 1e-2);

  Tensor dx = poisoned(x.shape(), c.dtype), dwq, dwk;
  if (c.norm) dwq = poisoned({dim}, DType::f32), dwk = poisoned({dim}, DType::f32);
  k.qk_norm_rope_backward(dx, dwq, dwk, dy, c.norm ? x : Tensor{}, wq, wk, rstd, c.shape, {c.theta});
  expect_values(
      dx, [&](auto i) { return definition.dx(dy, i); }, rounding(c.dtype, steps), c.dtype == DType::f32 ? 2 : 2e-2);
  if (!c.norm) return;
  const double terms = static_cast<double>(tokens * heads);  // of size one, added in f32
  expect_values(
      dwq, [&](auto d) { return definition.dw(dy, d, true); }, rounding(DType::f32, steps + terms), 1);
  expect_values(
      dwk, [&](auto d) { return definition.dw(dy, d, false); }, rounding(DType::f32, steps + terms), 1);
}

TEST(QkNormRopeKernel, ValuesAndPositionZeroPassUnchanged) {
  const AttentionShape shape{.batch = 2, .seq = 3, .n_heads = 2, .n_kv_heads = 1, .head_dim = 4};
  const Tensor x = random_rows({6, shape.width()}, DType::bf16, 1);
  Tensor y = poisoned(x.shape(), DType::bf16), rstd;
  k.qk_norm_rope(y, rstd, x, {}, {}, kEps, shape, {});
  for (std::int64_t t = 0; t < 6; ++t)
    for (std::int64_t i = t % 3 == 0 ? 0 : 12; i < shape.width(); ++i)
      EXPECT_EQ(at(y, t * shape.width() + i), at(x, t * shape.width() + i));
}

// Scores depend on the distance alone, which is what the rotation is for.
TEST(QkNormRopeKernel, ScoresDependOnTheDistance) {
  const AttentionShape shape{.batch = 1, .seq = 12, .n_heads = 1, .n_kv_heads = 1, .head_dim = 16};
  Tensor x = Tensor::empty({12, shape.width()}, DType::f32, Device{});
  const Tensor row = random({shape.width()}, 5);
  for (std::int64_t t = 0; t < 12; ++t) std::memcpy(x.rows(t, t + 1).bytes(), row.bytes(), row.size_in_bytes());
  Tensor y = empty_like(x), rstd;
  k.qk_norm_rope(y, rstd, x, {}, {}, kEps, shape, {});
  const auto score = [&](std::int64_t query, std::int64_t key) {
    double sum = 0;
    for (std::int64_t d = 0; d < 16; ++d) sum += at(y, query * 48 + d) * at(y, key * 48 + 16 + d);
    return sum;
  };
  for (std::int64_t shift = 1; shift < 8; ++shift) EXPECT_NEAR(score(4 + shift, shift), score(4, 0), 1e-5);
}

// The table of angles grows and changes with what is asked of it.
TEST(QkNormRopeKernel, FollowsEveryChangeOfShapeAndBase) {
  const Tensor none;
  for (const auto& [seq, dim, theta] :
       {std::tuple{4, 8, 100.0f}, {9, 8, 100.0f}, {3, 8, 100.0f}, {9, 8, 500.0f}, {9, 4, 500.0f}, {20, 8, 100.0f}}) {
    const Case c{{.batch = 1, .seq = seq, .n_heads = 1, .n_kv_heads = 1, .head_dim = dim}, DType::f32, false, theta};
    const Tensor x = random({seq, c.shape.width()}, 1);
    Tensor y = poisoned(x.shape(), DType::f32), rstd;
    k.qk_norm_rope(y, rstd, x, none, none, kEps, c.shape, {theta});
    const Definition definition{x, none, none, c};
    expect_values(
        y, [&](auto i) { return definition.y(i); }, rounding(DType::f32, 32), 1);
  }
}

TEST(QkNormRopeKernel, SameBitsOnAnyNumberOfThreads) {
  const AttentionShape shape{.batch = 3, .seq = 67, .n_heads = 4, .n_kv_heads = 2, .head_dim = 32};
  const Tensor x = random_rows({shape.tokens(), shape.width()}, DType::bf16, 1);
  const Tensor dy = random_rows({shape.tokens(), shape.width()}, DType::bf16, 2), wq = random({32}, 3),
               wk = random({32}, 4);
  test::expect_same_bits_on_any_threads([&] {
    Tensor y = empty_like(x), rstd = poisoned({shape.tokens(), 6}, DType::f32);
    Tensor dx = empty_like(x), dwq = empty_like(wq), dwk = empty_like(wk);
    k.qk_norm_rope(y, rstd, x, wq, wk, kEps, shape, {});
    k.qk_norm_rope_backward(dx, dwq, dwk, dy, x, wq, wk, rstd, shape, {});
    return std::vector{y, rstd, dx, dwq, dwk};
  });
}

}  // namespace
}  // namespace switchyard
