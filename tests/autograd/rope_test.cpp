#include <gtest/gtest.h>

#include "autograd/ops.h"
#include "grad_check.h"

namespace switchyard {
namespace {

using test::check_gradients, test::random;

constexpr AttentionShape kShape{.batch = 2, .seq = 3, .n_heads = 2, .n_kv_heads = 1, .head_dim = 4};

TEST(QkNormRope, Gradients) {
  check_gradients({Variable(random({6, 16}, 1), true), Variable(random({4}, 2), true), Variable(random({4}, 3), true)},
                  [](auto& in) { return qk_norm_rope(in[0], in[1], in[2], 1e-5f, kShape, {}); });
}

TEST(QkNormRope, GradientsWithoutNorms) {
  check_gradients({Variable(random({6, 16}, 1), true)},
                  [](auto& in) { return qk_norm_rope(in[0], {}, {}, 1e-5f, kShape, {}); });
}

TEST(QkNormRope, KeepsItsRowsForTheNormsAlone) {
  for (bool norm : {false, true}) {
    const Tensor x = random({6, 16}, 1);
    Variable rows(x, true), w = norm ? Variable(random({4}, 2), true) : Variable{};
    const Variable y = qk_norm_rope(rows, w, w, 1e-5f, kShape, {});
    rows.value() = {};  // what is left is what backward captured
    EXPECT_EQ(x.sole_owner(), !norm);
  }
}

TEST(QkNormRope, LearnsItsWeightsThoughTheRowsAreConstant) {
  Variable x(random({6, 16}, 1)), wq(random({4}, 2), true), wk(random({4}, 3), true);
  check_gradients({x, wq, wk}, [](auto& in) { return qk_norm_rope(in[0], in[1], in[2], 1e-5f, kShape, {}); });
}

TEST(QkNormRope, RefusesWhatDoesNotFit) {
  const Variable x(random({6, 16}, 1)), w(random({4}, 2)), narrow(random({3}, 2));
  EXPECT_THROW(qk_norm_rope(Variable(random({6, 15}, 1)), w, w, 1e-5f, kShape, {}), Error);
  EXPECT_THROW(qk_norm_rope(x, w, {}, 1e-5f, kShape, {}), Error);
  EXPECT_THROW(qk_norm_rope(x, narrow, narrow, 1e-5f, kShape, {}), Error);
  const AttentionShape odd{.batch = 2, .seq = 3, .n_heads = 1, .n_kv_heads = 1, .head_dim = 3};
  EXPECT_THROW(qk_norm_rope(Variable(random({6, 9}, 1)), {}, {}, 1e-5f, odd, {}), Error);
}

}  // namespace
}  // namespace switchyard
