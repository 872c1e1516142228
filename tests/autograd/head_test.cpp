#include <cmath>
#include <vector>

#include "autograd/ops.h"
#include "grad_check.h"
#include "tensor/memory.h"

namespace switchyard {
namespace {

using test::at, test::check_gradients, test::floats, test::ints, test::random;

Variable leaf(Tensor t) { return Variable(std::move(t), true); }

struct Case {
  Tensor x_TD, w_VD, target_T;
  float scale;
};

// Loss, losses and gradients of sum_t scale (logsumexp l_t - l_t[target_t]), l = x w^T, as loops.
struct Definition {
  double loss = 0;
  std::vector<double> token_loss, dx, dw;

  explicit Definition(const Case& c)
      : dx(static_cast<std::size_t>(c.x_TD.numel())), dw(static_cast<std::size_t>(c.w_VD.numel())) {
    const std::int64_t tokens = c.x_TD.dim(0), width = c.x_TD.dim(1), words = c.w_VD.dim(0);
    std::vector<double> l(static_cast<std::size_t>(words));
    for (std::int64_t t = 0; t < tokens; ++t) {
      double sum = 0;
      for (std::int64_t v = 0; v < words; ++v) {
        double logit = 0;
        for (std::int64_t d = 0; d < width; ++d) logit += at(c.x_TD, t * width + d) * at(c.w_VD, v * width + d);
        l[static_cast<std::size_t>(v)] = logit;
        sum += std::exp(logit);
      }
      const std::int32_t target = c.target_T.data<std::int32_t>()[t];
      token_loss.push_back(target < 0 ? 0 : std::log(sum) - l[static_cast<std::size_t>(target)]);
      loss += static_cast<double>(c.scale) * token_loss.back();
      if (target < 0) continue;
      for (std::int64_t v = 0; v < words; ++v) {
        const double dl =
            static_cast<double>(c.scale) * (std::exp(l[static_cast<std::size_t>(v)]) / sum - (v == target));
        for (std::int64_t d = 0; d < width; ++d) {
          dx[static_cast<std::size_t>(t * width + d)] += dl * at(c.w_VD, v * width + d);
          dw[static_cast<std::size_t>(v * width + d)] += dl * at(c.x_TD, t * width + d);
        }
      }
    }
  }
};

void expect_near(const Tensor& actual, const std::vector<double>& expected, double tolerance) {
  ASSERT_TRUE(actual);
  ASSERT_EQ(actual.numel(), static_cast<std::int64_t>(expected.size()));
  for (std::size_t i = 0; i < expected.size(); ++i)
    ASSERT_NEAR(at(actual, static_cast<std::int64_t>(i)), expected[i], tolerance) << i;
}

std::vector<std::int32_t> targets(std::int64_t tokens, std::int64_t words) {
  std::vector<std::int32_t> target;
  for (std::int64_t t = 0; t < tokens; ++t)
    target.push_back(t % 7 == 3 ? -1 : static_cast<std::int32_t>((t * 7919) % words));
  return target;
}

TEST(HeadLoss, Gradients) {
  const Tensor target = ints({5}, {0, 6, -1, 3, 3});
  check_gradients({leaf(random({5, 4}, 1)), leaf(random({7, 4}, 2))},
                  [&](auto& in) { return head_loss(in[0], in[1], target, 0.5f).loss_1; });
}

TEST(HeadLoss, IsTheDefinition) {
  const Case c{random({9, 16}, 1), random({33, 16}, 2), ints({9}, targets(9, 33)), 0.25f};
  const Variable x = leaf(c.x_TD), w = leaf(c.w_VD);
  HeadLoss head = head_loss(x, w, c.target_T, c.scale);
  const Definition expected(c);
  // f32 rounds a logit (16 products, at most 16 in size) to about 1e-6, and so each loss and each probability.
  EXPECT_NEAR(at(head.loss_1.value(), 0), expected.loss, 1e-5);
  expect_near(head.token_loss_T, expected.token_loss, 5e-6);
  head.loss_1.backward(floats({1}, {2}));
  for (auto* gradient : {&x, &w}) {
    std::vector<double> twice = gradient == &x ? expected.dx : expected.dw;
    for (double& g : twice) g *= 2;
    expect_near(gradient->grad(), twice, 1e-5);
  }
}

constexpr std::int64_t kWords = 16'500;  // makes chunks of 256 rows

TEST(HeadLoss, IsTheDefinitionOverSeveralChunks) {
  const std::int64_t tokens = 260;
  const Case c{random({tokens, 2}, 1, 2), random({kWords, 2}, 2), ints({tokens}, targets(tokens, kWords)), 1.0f};
  const Variable x = leaf(c.x_TD), w = leaf(c.w_VD);
  HeadLoss head = head_loss(x, w, c.target_T, c.scale);
  const Definition expected(c);
  // Logits are at most 4, and so within 1e-6; a loss of about 10 rounds to 1e-6 too.
  expect_near(head.token_loss_T, expected.token_loss, 5e-6);
  EXPECT_NEAR(at(head.loss_1.value(), 0), expected.loss, 1e-6 * expected.loss);
  head.loss_1.backward(floats({1}, {1}));
  expect_near(x.grad(), expected.dx, 1e-5);
  expect_near(w.grad(), expected.dw, 1e-5);
}

TEST(HeadLoss, NeverHoldsTheLogitsOfAllRows) {
  const std::int64_t tokens = 1024;
  const Variable x = leaf(random({tokens, 2}, 1)), w = leaf(random({kWords, 2}, 2));
  const Tensor target = ints({tokens}, targets(tokens, kWords));
  const std::int64_t before = memory_use(Device{}).total_now;
  reset_peak(Device{});
  head_loss(x, w, target, 1);
  // A chunk's logits and their gradients, in blocks up to an eighth larger, and the small rest.
  EXPECT_LT(memory_use(Device{}).total_peak - before, 2 * 256 * kWords * 4 * 5 / 4);
}

TEST(HeadLoss, BfloatRowsAgreeWithTheDefinitionOnRoundedFactors) {
  Case c{cast(random({40, 32}, 1), DType::bf16), random({65, 32}, 2), ints({40}, targets(40, 65)), 0.125f};
  const Variable x = leaf(c.x_TD), w = leaf(c.w_VD);
  HeadLoss head = head_loss(x, w, c.target_T, c.scale);
  c.w_VD = cast(c.w_VD, DType::bf16);  // as the compute copy rounds it
  const Definition expected(c);
  // Products of bf16 are exact in f32 and summed there, so that the losses are as good as in f32.
  expect_near(head.token_loss_T, expected.token_loss, 1e-5);
  head.loss_1.backward(floats({1}, {1}));
  EXPECT_EQ(x.grad().dtype(), DType::bf16);
  EXPECT_EQ(w.grad().dtype(), DType::f32);
  // dl is rounded to 8 bits, 2^-9 of at most scale = 1/8 each; dx adds 65 terms |dl w| (sum of |dl| at most 2 scale)
  // and rounds once more, dw adds 40 terms |dl x|, mostly small.
  expect_near(x.grad(), expected.dx, 2 * 0.125 * 0x1p-9 + 0.25 * 0x1p-8);
  expect_near(w.grad(), expected.dw, 0.125 * 0x1p-9 * 10);
}

TEST(HeadLoss, MakesNoGradientThatNobodyAskedFor) {
  const Tensor x = random({8, 4096}, 1), w = random({64, 4096}, 2), target = ints({8}, targets(8, 64));
  constexpr std::int64_t kDx = 8 * 4096 * 4, kDw = 64 * 4096 * 4, kRest = kDx / 2;  // the logits are a few KiB
  const auto peak = [&](bool dx, bool dw) {
    const Variable x_TD(x, dx), w_VD(w, dw);
    const std::int64_t before = memory_use(Device{}).total_now;
    reset_peak(Device{});
    const Variable loss = head_loss(x_TD, w_VD, target, 1).loss_1;
    EXPECT_EQ(loss.requires_grad(), is_recording() && (dx || dw));
    return memory_use(Device{}).total_peak - before;
  };
  EXPECT_LT(peak(true, false), kDx + kRest);
  EXPECT_LT(peak(false, true), kDw + kRest);
  EXPECT_LT(peak(false, false), kRest);
  NoGrad guard;
  EXPECT_LT(peak(true, true), kRest);
}

TEST(HeadLoss, GivesEachInputItsGradientWithoutTheOther) {
  const Tensor target = ints({5}, {0, 6, -1, 3, 3});
  for (bool x_learns : {false, true})
    check_gradients({Variable(random({5, 4}, 1), x_learns), Variable(random({7, 4}, 2), !x_learns)},
                    [&](auto& in) { return head_loss(in[0], in[1], target, 1).loss_1; });
}

TEST(HeadLoss, WithoutTokensIsZeroWithZeroGradients) {
  const Variable x = leaf(Tensor::empty({0, 4}, DType::f32, Device{})), w = leaf(random({7, 4}, 2));
  HeadLoss head = head_loss(x, w, ints({0}, {}), 1);
  EXPECT_EQ(at(head.loss_1.value(), 0), 0);
  head.loss_1.backward(floats({1}, {1}));
  expect_near(w.grad(), std::vector<double>(28, 0), 0);
}

TEST(HeadLoss, SaysWhatDoesNotFit) {
  try {
    head_loss(leaf(random({5, 4}, 1)), leaf(random({7, 4}, 2)), ints({4}, {0, 1, 2, 3}), 1);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("head_loss: i32 targets (4) for 5 tokens"), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace switchyard
