#include "autograd/ops.h"
#include "grad_check.h"

namespace switchyard {
namespace {

TEST(AttentionOp, GradientsAgreeWithFiniteDifferences) {
  const AttentionShape shape{.batch = 2, .seq = 5, .n_heads = 4, .n_kv_heads = 2, .head_dim = 4};
  test::check_gradients({Variable(test::random({shape.tokens(), shape.width()}, 1), true)},
                        [&](auto& in) { return attention(in[0], shape); });
}

// Twelve keys reach the last bucket, whose distances begin at 8.
TEST(AttentionOp, GradientsOfABiasAgreeWithFiniteDifferences) {
  const AttentionShape shape{.batch = 2, .seq = 12, .n_heads = 4, .n_kv_heads = 2, .head_dim = 4};
  const RelativeBuckets buckets{.count = 6, .max_distance = 16};
  test::check_gradients({Variable(test::random({shape.tokens(), shape.width()}, 1), true),
                         Variable(test::random({shape.n_heads, buckets.count}, 2), true)},
                        [&](auto& in) { return attention(in[0], shape, in[1], buckets); });
}

TEST(AttentionOp, NoTokenSeesALaterOne) {
  const AttentionShape shape{.batch = 1, .seq = 6, .n_heads = 2, .n_kv_heads = 1, .head_dim = 4};
  Variable qkv(test::random({shape.tokens(), shape.width()}, 1));
  const Tensor before = attention(qkv, shape).value();
  for (std::int64_t i = 4 * shape.width(); i < qkv.value().numel(); ++i) qkv.value().data<float>()[i] += 1;
  const Tensor after = attention(qkv, shape).value();
  for (std::int64_t i = 0; i < 4 * 2 * 4; ++i) EXPECT_EQ(test::at(before, i), test::at(after, i));
  EXPECT_NE(test::at(before, 4 * 2 * 4), test::at(after, 4 * 2 * 4));
}

TEST(AttentionOp, SaysWhatDoesNotFit) {
  const AttentionShape shape{.batch = 1, .seq = 6, .n_heads = 2, .n_kv_heads = 1, .head_dim = 4};
  EXPECT_THROW(attention(Variable(test::random({6, 15}, 1)), shape), Error);
  const AttentionShape uneven{.batch = 1, .seq = 6, .n_heads = 3, .n_kv_heads = 2, .head_dim = 4};
  EXPECT_THROW(attention(Variable(test::random({6, uneven.width()}, 1)), uneven), Error);
  const Variable qkv(test::random({6, shape.width()}, 1)), bias(test::random({2, 4}, 2));
  EXPECT_NO_THROW(attention(qkv, shape, bias, {.count = 4, .max_distance = 3}));
  EXPECT_THROW(attention(qkv, shape, bias, {.count = 8, .max_distance = 32}), Error);
  EXPECT_THROW(attention(qkv, shape, bias, {.count = 4, .max_distance = 2}), Error);
  EXPECT_THROW(attention(qkv, shape, Variable(test::random({2, 3}, 2)), {.count = 3, .max_distance = 8}), Error);
}

}  // namespace
}  // namespace switchyard
