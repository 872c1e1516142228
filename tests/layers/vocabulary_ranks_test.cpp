#include "layers/vocabulary.h"

#include <gtest/gtest.h>

#include <cmath>

#include "ranks.h"
#include "slices.h"

namespace switchyard {
namespace {

using test::at, test::expect_near, test::floats, test::ints, test::random, test::slice_of;

constexpr std::int64_t kWords = 11, kWidth = 5, kTokens = 12;  // words that no number of ranks divides
constexpr Init kInit{.std = 0.5};
const std::vector<int> kSizes{1, 2, 3, 4};

Tensor whole_table(const std::string& name) {
  ParameterMaker make(1, Device{});
  return make.matrix(name, {kWords, kWidth}, kInit).value();
}

Tensor words() { return ints({kTokens}, {0, 10, 3, 3, 7, 5, 10, 1, 9, 4, 3, 0}); }

Tensor my_rows(const Tensor& all, const ProcessGroup& group) {
  const std::int64_t rows = kTokens / group.size();
  return all.rows(rows * group.rank(), rows * (group.rank() + 1));
}

TEST(Vocabulary, EmbedsTheWordsOfAllRanks) {
  test::on_ranks(kSizes, [](ProcessGroup& group) {
    const Vocabulary vocabulary(kWords, group);
    ParameterMaker make(1, Device{});
    const Variable table = vocabulary.table("embed", kWidth, kInit, make);
    const Parameters made = make.take();
    const Tensor whole_VD = whole_table("embed");
    expect_near(table.value(), slice_of(whole_VD, made[0]), 0);

    Tensor expected = Tensor::empty({kTokens, kWidth}, DType::f32, Device{}), gradient = zeros_like(whole_VD);
    const Tensor dy = random({kTokens, kWidth}, 2), word_T = words();
    for (std::int64_t t = 0; t < kTokens; ++t)
      for (std::int64_t d = 0; d < kWidth; ++d) {
        const std::int64_t word = word_T.data<std::int32_t>()[t];
        expected.data<float>()[t * kWidth + d] = whole_VD.data<float>()[word * kWidth + d];
        gradient.data<float>()[word * kWidth + d] += dy.data<float>()[t * kWidth + d];
      }
    Variable y = vocabulary.embed(table, word_T, DType::f32);
    expect_near(y.value(), my_rows(expected, group), 0);
    y.backward(my_rows(dy, group));
    expect_near(table.grad(), slice_of(gradient, made[0]), 1e-6);  // at most three summands a word, below 1
  });
}

// sum over targets of scale (logsumexp l_t - l_t[target_t]), l = x w^T: each token's, and the gradients of the sum.
struct Definition {
  Tensor token_loss_T, dx_TD, dw_VD;

  Definition(const Tensor& x_TD, const Tensor& w_VD, const Tensor& target_T, float scale)
      : token_loss_T(Tensor::zeros({kTokens}, DType::f32, Device{})), dx_TD(zeros_like(x_TD)), dw_VD(zeros_like(w_VD)) {
    for (std::int64_t t = 0; t < kTokens; ++t) {
      const std::int32_t target = target_T.data<std::int32_t>()[t];
      if (target < 0) continue;
      std::vector<double> l(kWords);
      double sum = 0;
      for (std::int64_t v = 0; v < kWords; ++v) {
        for (std::int64_t d = 0; d < kWidth; ++d)
          l[static_cast<std::size_t>(v)] += at(x_TD, t * kWidth + d) * at(w_VD, v * kWidth + d);
        sum += std::exp(l[static_cast<std::size_t>(v)]);
      }
      token_loss_T.data<float>()[t] = static_cast<float>(std::log(sum) - l[static_cast<std::size_t>(target)]);
      for (std::int64_t v = 0; v < kWords; ++v) {
        const double dl = double{scale} * (std::exp(l[static_cast<std::size_t>(v)]) / sum - (v == target));
        for (std::int64_t d = 0; d < kWidth; ++d) {
          dx_TD.data<float>()[t * kWidth + d] += static_cast<float>(dl * at(w_VD, v * kWidth + d));
          dw_VD.data<float>()[v * kWidth + d] += static_cast<float>(dl * at(x_TD, t * kWidth + d));
        }
      }
    }
  }
};

TEST(Vocabulary, TheLossIsThatOfAllWords) {
  test::on_ranks(kSizes, [](ProcessGroup& group) {
    const Vocabulary vocabulary(kWords, group);
    ParameterMaker make(1, Device{});
    const Variable w = vocabulary.table("head", kWidth, kInit, make);
    const Parameters made = make.take();
    Tensor target = words();
    for (const int none : {4, 11}) target.data<std::int32_t>()[none] = -1;
    const Tensor x_TD = random({kTokens, kWidth}, 3);
    const float scale = 0.25f;
    const Definition expected(x_TD, whole_table("head"), target, scale);

    // Of logits below 5 f32 rounds each to about 1e-6, and so each loss and each gradient.
    const Variable x(my_rows(x_TD, group), true);
    HeadLoss head = vocabulary.loss(x, w, target, scale);
    expect_near(head.token_loss_T, expected.token_loss_T, 5e-6);
    double mine = 0;
    const Tensor my_losses = my_rows(expected.token_loss_T, group);
    for (std::int64_t t = 0; t < my_losses.numel(); ++t) mine += double{scale} * at(my_losses, t);
    EXPECT_NEAR(at(head.loss_1.value(), 0), mine, 1e-5);
    head.loss_1.backward(floats({1}, {1}));
    expect_near(x.grad(), my_rows(expected.dx_TD, group), 5e-6);
    expect_near(w.grad(), slice_of(expected.dw_VD, made[0]), 5e-6);
  });
}

TEST(Vocabulary, EveryRankHasAWord) {
  test::on_ranks({4}, [](ProcessGroup& group) { EXPECT_THROW(Vocabulary(3, group), Error); });
}

}  // namespace
}  // namespace switchyard
