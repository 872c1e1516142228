#include <cstring>
#include <thread>

#include "grad_check.h"
#include "tensor/kernels.h"

namespace switchyard {
namespace {

using test::at;

// T5's bucket of a distance (arXiv 1910.10683, section 2.1, for one direction).
std::int64_t bucket_of(std::int64_t distance, RelativeBuckets buckets) {
  const std::int64_t exact = buckets.count / 2;
  if (distance < exact) return distance;
  const double e = double(exact), large = std::log(double(distance) / e) / std::log(double(buckets.max_distance) / e);
  return std::min(exact + std::int64_t(large * double(buckets.count - exact)), buckets.count - 1);
}

// The definition in double, one query head after another: y, lse, and for a given dy the gradients of the fused rows
// and of the bias, if there is one.
struct Definition {
  std::vector<double> y, lse, dqkv, dbias;

  Definition(const Tensor& qkv, const Tensor& dy, const Tensor& bias, AttentionShape s, RelativeBuckets buckets)
      : y(static_cast<std::size_t>(s.tokens() * s.n_heads * s.head_dim)),
        lse(static_cast<std::size_t>(s.tokens() * s.n_heads)),
        dqkv(static_cast<std::size_t>(s.tokens() * s.width())),
        dbias(static_cast<std::size_t>(s.n_heads * buckets.count)) {
    const std::int64_t D = s.head_dim, group = s.n_heads / s.n_kv_heads;
    const double scale = 1 / std::sqrt(static_cast<double>(D));
    for (std::int64_t b = 0; b < s.batch; ++b)
      for (std::int64_t h = 0; h < s.n_heads; ++h)
        for (std::int64_t i = 0; i < s.seq; ++i) {
          const auto row = [&](std::int64_t t, std::int64_t head) { return ((b * s.seq + t) * s.width()) + head * D; };
          const std::int64_t key = s.n_heads + h / group, value = key + s.n_kv_heads;
          std::vector<double> p;
          double sum = 0;
          for (std::int64_t j = 0; j <= i; ++j) {
            double score = 0;
            for (std::int64_t d = 0; d < D; ++d) score += at(qkv, row(i, h) + d) * at(qkv, row(j, key) + d);
            score *= scale;
            if (bias) score += at(bias, h * buckets.count + bucket_of(i - j, buckets));
            sum += p.emplace_back(std::exp(score));
          }
          lse[static_cast<std::size_t>((b * s.n_heads + h) * s.seq + i)] = std::log(sum);
          const std::int64_t out = ((b * s.seq + i) * s.n_heads + h) * D;
          double delta = 0;
          for (std::int64_t d = 0; d < D; ++d) {
            double& sum_d = y[static_cast<std::size_t>(out + d)];
            for (std::int64_t j = 0; j <= i; ++j)
              sum_d += p[static_cast<std::size_t>(j)] / sum * at(qkv, row(j, value) + d);
            delta += sum_d * at(dy, out + d);
          }
          for (std::int64_t j = 0; j <= i; ++j) {
            const double pj = p[static_cast<std::size_t>(j)] / sum;
            double dp = 0;
            for (std::int64_t d = 0; d < D; ++d) dp += at(dy, out + d) * at(qkv, row(j, value) + d);
            if (bias) dbias[std::size_t(h * buckets.count + bucket_of(i - j, buckets))] += pj * (dp - delta);
            const double ds = pj * (dp - delta) * scale;
            for (std::int64_t d = 0; d < D; ++d) {
              dqkv[static_cast<std::size_t>(row(i, h) + d)] += ds * at(qkv, row(j, key) + d);
              dqkv[static_cast<std::size_t>(row(j, key) + d)] += ds * at(qkv, row(i, h) + d);
              dqkv[static_cast<std::size_t>(row(j, value) + d)] += pj * at(dy, out + d);
            }
          }
        }
  }
};

struct Result {
  Tensor y, lse_BHT, dqkv, dbias;
};

struct Inputs {
  Tensor qkv, dy, bias;

  Inputs(AttentionShape s, DType dtype, RelativeBuckets buckets = {})
      : qkv(cast(test::random({s.tokens(), s.width()}, 1), dtype)),
        dy(cast(test::random({s.tokens(), s.n_heads * s.head_dim}, 2), dtype)),
        bias(buckets.count > 0 ? test::random({s.n_heads, buckets.count}, 3, 2) : Tensor{}) {}
};

Result run(const Inputs& in, AttentionShape s, RelativeBuckets buckets = {}) {
  const auto filled = [](Shape shape, DType dtype) { return cast(test::random(shape, 5), dtype); };
  Result r{filled(in.dy.shape(), in.qkv.dtype()), filled({s.batch, s.n_heads, s.seq}, DType::f32),
           filled(in.qkv.shape(), in.qkv.dtype()), in.bias ? filled(in.bias.shape(), DType::f32) : Tensor{}};
  kernels(Device{}).attention(r.y, r.lse_BHT, in.qkv, in.bias, s, buckets);
  kernels(Device{}).attention_backward(r.dqkv, r.dbias, in.dy, in.qkv, in.bias, r.y, r.lse_BHT, s, buckets);
  return r;
}

// The root mean square of the differences against that of the expected values: rounding errors are independent, so
// that this stays at the size of one rounding while a wrong or missing term moves it by its share.
double relative_error(const Tensor& actual, const std::vector<double>& expected) {
  double error = 0, size = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double difference = at(actual, static_cast<std::int64_t>(i)) - expected[i];
    error += difference * difference;
    size += expected[i] * expected[i];
  }
  return std::sqrt(error / size);
}

class Attention : public testing::TestWithParam<DType> {};

INSTANTIATE_TEST_SUITE_P(Types, Attention, testing::Values(DType::f32, DType::bf16),
                         [](const auto& info) { return std::string(name_of(info.param)); });

// f32: sums of up to 320 terms of size 1 with 2^-24 each stay below 1e-5 in the worst element. bf16: p, ds, y and the
// result round by up to 2^-8 of themselves each, 2^-10 in the mean square, so that all together stay below 2^-8 in the
// mean square; a single element may be off by several whole roundings of the largest term, 1 here.
void expect_definition(AttentionShape s, DType dtype, RelativeBuckets buckets = {}) {
  const Inputs in(s, dtype, buckets);
  const Result r = run(in, s, buckets);
  const Definition expected(in.qkv, in.dy, in.bias, s, buckets);
  const bool exact = dtype == DType::f32;
  EXPECT_LT(relative_error(r.y, expected.y), exact ? 1e-6 : 0x1p-8);
  EXPECT_LT(relative_error(r.lse_BHT, expected.lse), 1e-6);
  EXPECT_LT(relative_error(r.dqkv, expected.dqkv), exact ? 1e-6 : 0x1p-8);
  const auto expect_near = [&](const Tensor& actual, const std::vector<double>& values, double tolerance) {
    for (std::int64_t i = 0; i < actual.numel(); ++i) {
      const double value = values[static_cast<std::size_t>(i)];
      ASSERT_NEAR(at(actual, i), value, tolerance * std::max(1.0, std::abs(value))) << "at " << i;
    }
  };
  expect_near(r.y, expected.y, exact ? 1e-5 : 0x1p-6);
  expect_near(r.lse_BHT, expected.lse, 1e-5);
  expect_near(r.dqkv, expected.dqkv, exact ? 1e-5 : 0x1p-5);
  if (!in.bias) return;
  // Sums of p (dp - delta), in which a bf16 y makes each delta wrong by 2^-9 of dy y, 1 at the most; by chance these
  // add up to 2^-5 over 300 queries. All scores of one query alone make 0.
  expect_near(r.dbias, expected.dbias, exact ? 1e-5 : 0x1p-5);
  if (s.seq > 1) {
    EXPECT_LT(relative_error(r.dbias, expected.dbias), exact ? 2e-6 : 0x1p-7);
  }
}

TEST_P(Attention, IsTheDefinition) {
  for (std::int64_t seq : {1, 3, 33, 64, 65, 130})
    expect_definition({.batch = 2, .seq = seq, .n_heads = 2, .n_kv_heads = 2, .head_dim = 16}, GetParam());
}

TEST_P(Attention, SharesKeysAndValuesAmongQueries) {
  expect_definition({.batch = 2, .seq = 70, .n_heads = 6, .n_kv_heads = 2, .head_dim = 8}, GetParam());
  expect_definition({.batch = 1, .seq = 40, .n_heads = 4, .n_kv_heads = 1, .head_dim = 32}, GetParam());
}

TEST_P(Attention, TakesAnyWidthOfAHead) {
  for (std::int64_t head_dim : {8, 40, 64, 256})
    expect_definition({.batch = 1, .seq = 37, .n_heads = 2, .n_kv_heads = 1, .head_dim = head_dim}, GetParam());
}

TEST_P(Attention, GoesOnFromOneBlockOfKeysToTheNext) {
  expect_definition({.batch = 1, .seq = 300, .n_heads = 1, .n_kv_heads = 1, .head_dim = 16}, GetParam());
}

TEST_P(Attention, AddsABiasByDistance) {
  const RelativeBuckets few{.count = 8, .max_distance = 32}, t5{.count = 32, .max_distance = 128};
  for (std::int64_t seq : {1, 5, 33, 65, 130})
    expect_definition({.batch = 2, .seq = seq, .n_heads = 2, .n_kv_heads = 2, .head_dim = 16}, GetParam(), few);
  expect_definition({.batch = 2, .seq = 70, .n_heads = 6, .n_kv_heads = 2, .head_dim = 8}, GetParam(), t5);
  expect_definition({.batch = 1, .seq = 300, .n_heads = 2, .n_kv_heads = 1, .head_dim = 16}, GetParam(), t5);
}

TEST_P(Attention, TakesNoSequences) {
  const AttentionShape s{.batch = 0, .seq = 16, .n_heads = 2, .n_kv_heads = 1, .head_dim = 8};
  const Inputs in(s, GetParam());
  EXPECT_EQ(run(in, s).dqkv.numel(), 0);
  const RelativeBuckets buckets{.count = 4, .max_distance = 8};
  const Result r = run(Inputs(s, GetParam(), buckets), s, buckets);
  for (std::int64_t i = 0; i < r.dbias.numel(); ++i) EXPECT_EQ(at(r.dbias, i), 0);
}

TEST_P(Attention, SurvivesScoresFarBeyondTheRangeOfExp) {
  const AttentionShape s{.batch = 1, .seq = 20, .n_heads = 1, .n_kv_heads = 1, .head_dim = 16};
  Inputs in(s, DType::f32);
  for (std::int64_t i = 0; i < in.qkv.numel(); ++i) in.qkv.data<float>()[i] *= 100;
  in.qkv = cast(in.qkv, GetParam());
  in.dy = cast(in.dy, GetParam());
  const Result r = run(in, s);
  for (const Tensor& t : {r.y, r.lse_BHT, r.dqkv})
    for (std::int64_t i = 0; i < t.numel(); ++i) ASSERT_TRUE(std::isfinite(at(t, i)));
}

TEST_P(Attention, GivesTheSameBitsOnEveryCallAndInEveryThread) {
  const AttentionShape s{.batch = 2, .seq = 100, .n_heads = 4, .n_kv_heads = 2, .head_dim = 32};
  const RelativeBuckets buckets{.count = 8, .max_distance = 32};
  const Inputs in(s, GetParam(), buckets);
  const Result expected = run(in, s, buckets);
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&] {
      const Result r = run(in, s, buckets);
      EXPECT_EQ(std::memcmp(r.y.bytes(), expected.y.bytes(), r.y.size_in_bytes()), 0);
      EXPECT_EQ(std::memcmp(r.dqkv.bytes(), expected.dqkv.bytes(), r.dqkv.size_in_bytes()), 0);
      EXPECT_EQ(std::memcmp(r.dbias.bytes(), expected.dbias.bytes(), r.dbias.size_in_bytes()), 0);
    });
  for (auto& thread : threads) thread.join();
}

}  // namespace
}  // namespace switchyard
