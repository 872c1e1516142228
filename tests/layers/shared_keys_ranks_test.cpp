#include "layers/shared_keys.h"

#include <gtest/gtest.h>

#include "grad_check.h"
#include "ranks.h"

namespace switchyard {
namespace {

constexpr std::int64_t kTokens = 3, kQueries = 6, kKeys = 2;  // columns of a rank

// What every rank has is a function of its number, so that each knows everyone's.
Tensor rows_of(int rank) { return test::random({kTokens, kQueries + 2 * kKeys}, 10 + static_cast<unsigned>(rank)); }
Tensor gradient_of(int rank, int sharers) {
  return test::random({kTokens, kQueries + 2 * sharers * kKeys}, 50 + static_cast<unsigned>(rank));
}
double element(const Tensor& rows, std::int64_t t, std::int64_t column) {
  return test::at(rows, t * rows.dim(1) + column);
}

void check(std::int64_t n_kv_heads, ProcessGroup& group) {
  const auto sharers = make_key_sharers(n_kv_heads, group);
  const int n = sharers->size(), me = sharers->rank(), first = group.rank() - me;
  ASSERT_EQ(n, std::max(1, group.size() / static_cast<int>(n_kv_heads)));
  ASSERT_EQ(first % n, 0) << "neighbours share";

  const Variable qkv(rows_of(group.rank()), true);
  Variable y = SharedKeys({.queries = kQueries, .keys = kKeys}, *sharers)(qkv);
  ASSERT_EQ(y.shape(), (Shape{kTokens, kQueries + 2 * n * kKeys}));
  for (std::int64_t t = 0; t < kTokens; ++t) {
    for (std::int64_t c = 0; c < kQueries; ++c)
      EXPECT_EQ(element(y.value(), t, c), element(rows_of(group.rank()), t, c));
    for (int value = 0; value < 2; ++value)  // keys, then values
      for (int s = 0; s < n; ++s)
        for (std::int64_t c = 0; c < kKeys; ++c)
          EXPECT_EQ(element(y.value(), t, kQueries + (value * n + s) * kKeys + c),
                    element(rows_of(first + s), t, kQueries + value * kKeys + c));
  }

  y.backward(gradient_of(group.rank(), n));
  for (std::int64_t t = 0; t < kTokens; ++t) {
    for (std::int64_t c = 0; c < kQueries; ++c)
      EXPECT_EQ(element(qkv.grad(), t, c), element(gradient_of(group.rank(), n), t, c));
    for (int value = 0; value < 2; ++value)
      for (std::int64_t c = 0; c < kKeys; ++c) {
        double sum = 0;  // over the ranks that used it; f32 rounds each of at most 7 sums of numbers below 8
        for (int s = 0; s < n; ++s)
          sum += element(gradient_of(first + s, n), t, kQueries + (value * n + me) * kKeys + c);
        EXPECT_NEAR(element(qkv.grad(), t, kQueries + value * kKeys + c), sum, 7 * 0x1p-22);
      }
  }
}

TEST(SharedKeys, EveryKeyOfAHeadComesAndItsGradientsGoHome) {
  test::on_ranks({1, 2, 4, 8}, [](ProcessGroup& group) {
    for (const std::int64_t heads : {1, 2, 4}) check(heads, group);
  });
}

TEST(SharedKeys, HeadsAndRanksMustDivide) {
  test::on_ranks({3}, [](ProcessGroup& group) { EXPECT_THROW(make_key_sharers(2, group), Error); });
}

}  // namespace
}  // namespace switchyard
