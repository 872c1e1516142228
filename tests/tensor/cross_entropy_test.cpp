#include <cmath>
#include <vector>

#include "tensor/kernel_check.h"

namespace switchyard {
namespace {

using test::at, test::floats, test::ints, test::poisoned, test::random;

const Kernels& k = kernels(Device{});

struct Result {
  Tensor loss_R, dlogits_RV;
};

// `gradient` is the type of dlogits.
Result cross_entropy(const Tensor& logits, const Tensor& target, float scale, DType gradient) {
  Result r{poisoned({logits.dim(0)}, DType::f32), poisoned(logits.shape(), gradient)};
  k.cross_entropy(r.loss_R, r.dlogits_RV, logits, target, scale);
  return r;
}

void expect_definition(const Result& r, const Tensor& logits, const Tensor& target, double scale) {
  const std::int64_t words = logits.dim(1);
  const bool rounded = r.dlogits_RV.dtype() == DType::bf16;
  for (std::int64_t row = 0; row < logits.dim(0); ++row) {
    const std::int32_t wanted = target.data<std::int32_t>()[row];
    double sum = 0;
    for (std::int64_t v = 0; v < words; ++v) sum += std::exp(at(logits, row * words + v));
    // f32 rounds logit - max (at most 20) to 1e-6 before the exponential: an absolute error of the loss, a relative one
    // of the probability. bf16 gradients round to 8 bits.
    const double loss = wanted < 0 ? 0 : std::log(sum) - at(logits, row * words + wanted);
    EXPECT_NEAR(at(r.loss_R, row), loss, 3e-6) << row;
    for (std::int64_t v = 0; v < words; ++v) {
      const double p = std::exp(at(logits, row * words + v)) / sum;
      const double expected = wanted < 0 ? 0 : scale * (p - (v == wanted));
      const double tolerance =
          scale * 4e-6 * p + (rounded ? 0x1p-8 * std::abs(expected) : 1e-7 * scale * (v == wanted));
      ASSERT_NEAR(at(r.dlogits_RV, row * words + v), expected, tolerance) << row << " " << v;
    }
  }
}

TEST(CrossEntropy, IsTheDefinitionForEveryTypeAndWidth) {
  for (std::int64_t words : {1, 2, 7, 16, 100, 1003})
    for (DType rows : {DType::f32, DType::bf16})
      for (DType gradient : {DType::f32, DType::bf16}) {
        const Tensor logits = cast(random({4, words}, 1, 10), rows);
        const auto last = static_cast<std::int32_t>(words - 1);
        const Tensor target = ints({4}, {0, last, -1, last / 2});
        expect_definition(cross_entropy(logits, target, 0.25f, gradient), logits, target, 0.25);
      }
}

// Words 0 … 6 on one rank, 7 … 9 on the next, 10 … 99 on the last.
TEST(CrossEntropy, OfWordsCutOverRanksIsThatOfAll) {
  constexpr std::int64_t kBegins[] = {0, 7, 10, 100};
  const Tensor logits = random({5, 100}, 1, 10), target = ints({5}, {0, 99, -1, 8, 6});
  for (DType gradient : {DType::f32, DType::bf16}) {
    Tensor parts = poisoned({3, 5, 4}, DType::f32);
    std::vector<Tensor> part_logits, part_target;
    for (int p = 0; p < 3; ++p) {
      const std::int64_t begin = kBegins[p], words = kBegins[p + 1] - begin;
      Tensor mine = poisoned({5, words}, DType::f32), wanted = poisoned({5}, DType::i32);
      for (std::int64_t r = 0; r < 5; ++r) {
        for (std::int64_t v = 0; v < words; ++v)
          mine.data<float>()[r * words + v] = logits.data<float>()[r * 100 + begin + v];
        const std::int64_t t = target.data<std::int32_t>()[r] - begin;
        wanted.data<std::int32_t>()[r] = static_cast<std::int32_t>(0 <= t && t < words ? t : -1);
      }
      Tensor part = parts.rows(p, p + 1).view({5, 4});
      k.cross_entropy_part(part, mine, wanted);
      part_logits.push_back(mine);
      part_target.push_back(wanted);
    }
    const Result whole = cross_entropy(logits, target, 0.25f, gradient);
    for (std::size_t p = 0; p < 3; ++p) {
      const std::int64_t begin = kBegins[p], words = kBegins[p + 1] - begin;
      Result r{poisoned({5}, DType::f32), poisoned({5, words}, gradient)};
      k.cross_entropy_whole(r.loss_R, r.dlogits_RV, part_logits[p], part_target[p], parts, 0.25f);
      // Another order of the sum, whose terms are relative to another largest logit first.
      test::expect_near(r.loss_R, whole.loss_R, 4e-6);
      for (std::int64_t row = 0; row < 5; ++row)
        for (std::int64_t v = 0; v < words; ++v) {
          const double expected = at(whole.dlogits_RV, row * 100 + begin + v);
          ASSERT_NEAR(at(r.dlogits_RV, row * words + v), expected,
                      2e-6 + (gradient == DType::bf16 ? 0x1p-8 * std::abs(expected) : 0));
        }
      Tensor none;
      k.cross_entropy_whole(r.loss_R, none, part_logits[p], part_target[p], parts, 0.25f);
      test::expect_near(r.loss_R, whole.loss_R, 4e-6);
    }
  }
}

TEST(CrossEntropy, IsTheDefinitionOnSeveralThreads) {
  const Tensor logits = random({40, 1000}, 2, 5);
  std::vector<std::int32_t> target;
  for (int r = 0; r < 40; ++r) target.push_back(r % 5 == 4 ? -1 : 25 * r);
  expect_definition(cross_entropy(logits, ints({40}, target), 1, DType::f32), logits, ints({40}, target), 1);
}

// Two equal logits: ln 2, and half a step each way.
TEST(CrossEntropy, ByHand) {
  const auto [loss, dlogits] = cross_entropy(floats({1, 2}, {3, 3}), ints({1}, {1}), 2, DType::f32);
  EXPECT_NEAR(at(loss, 0), std::log(2.0), 1e-6);
  test::expect_near(dlogits, floats({1, 2}, {1, -1}), 1e-6);
}

TEST(CrossEntropy, SurvivesLogitsThatOverflowTheExponential) {
  const auto [loss, dlogits] =
      cross_entropy(floats({2, 3}, {5000, 0, -5000, -5000, -5000, -6000}), ints({2}, {1, 2}), 1, DType::f32);
  test::expect_near(loss, floats({2}, {5000, 1000.693147f}), 1e-6);
  test::expect_near(dlogits, floats({2, 3}, {1, -1, 0, .5f, .5f, -1}), 1e-6);
}

TEST(CrossEntropy, ANaNLogitShowsInTheLoss) {
  const auto [loss, dlogits] = cross_entropy(floats({1, 3}, {0, std::nanf(""), 1}), ints({1}, {0}), 1, DType::f32);
  EXPECT_TRUE(std::isnan(at(loss, 0)));
  EXPECT_TRUE(std::isnan(at(dlogits, 2)));
}

TEST(CrossEntropy, WithoutGradientGivesTheSameLoss) {
  const Tensor logits = random({3, 50}, 3, 5), target = ints({3}, {7, -1, 49});
  Tensor loss = poisoned({3}, DType::f32), none;
  k.cross_entropy(loss, none, logits, target, 1);
  test::expect_near(loss, cross_entropy(logits, target, 1, DType::bf16).loss_R, 0);
}

TEST(Sum, AddsAllForAnyNumberOfThreads) {
  const Tensor x = random({100'001}, 4);
  double expected = 0;
  for (std::int64_t i = 0; i < x.numel(); ++i) expected += at(x, i);
  const auto sum = [&]() -> std::vector<Tensor> {
    Tensor y = poisoned({1}, DType::f32);
    k.sum(y, x, Into::overwrite);
    return {y};
  };
  test::expect_same_bits_on_any_threads(sum);
  EXPECT_NEAR(at(sum()[0], 0), expected, 6e-8 * std::abs(expected));  // summed in double, rounded once
}

TEST(Sum, AddsOnTopWhereAsked) {
  Tensor y = floats({1}, {0.5f});
  k.sum(y, floats({3}, {1, 2, 4}), Into::accumulate);
  EXPECT_EQ(at(y, 0), 7.5);
  k.sum(y, Tensor::empty({0}, DType::f32, Device{}), Into::accumulate);
  EXPECT_EQ(at(y, 0), 7.5);
  k.sum(y, Tensor::empty({0}, DType::f32, Device{}), Into::overwrite);
  EXPECT_EQ(at(y, 0), 0);
}

}  // namespace
}  // namespace switchyard
