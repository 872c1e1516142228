#include <cmath>

#include "autograd/ops.h"
#include "grad_check.h"

namespace switchyard {
namespace {

using test::at, test::check_gradients, test::floats, test::random;

Variable leaf(Tensor t) { return Variable(std::move(t), true); }

// Probabilities of four tokens over five experts, any two of a row at least 0.05 apart: a finite difference of step
// 0.01 never changes the choice.
Tensor apart() {
  return floats({4, 5}, {.05f, .30f, .10f, .40f, .15f, .45f, .05f, .25f, .15f, .10f,  //
                         .10f, .15f, .20f, .05f, .50f, .35f, .25f, .05f, .20f, .15f});
}

TEST(Softmax, Gradients) {
  check_gradients({leaf(random({3, 7}, 1, 3))}, [](auto& in) { return softmax(in[0]).p_TE; });
}

TEST(TopK, GradientsOfEveryKWithAndWithoutRenormalising) {
  for (std::int64_t k : {1, 2, 3, 5})
    for (Renormalise renormalise : {Renormalise::no, Renormalise::yes})
      check_gradients(
          {leaf(apart())}, [&](auto& in) { return top_k(in[0], k, renormalise).weight_TK; }, 1e-2, 3e-3);
}

// A lone renormalised weight is 1 whatever p is: it has no gradient, so a router of k = 1 must not renormalise.
TEST(TopK, ALoneRenormalisedChoiceTeachesNothing) {
  const Variable p = leaf(apart());
  Variable weight = top_k(p, 1, Renormalise::yes).weight_TK;
  weight.backward(random(weight.shape(), 1));
  for (std::int64_t i = 0; i < p.value().numel(); ++i) EXPECT_EQ(at(p.grad(), i), 0);
}

TEST(BalanceLoss, GradientsForOneAndSeveralGroups) {
  for (std::int64_t groups : {1, 2, 4})
    check_gradients({leaf(random({4, 3}, 1))}, [&](auto& in) {
      return balance_loss(in[0], random({groups, 3}, 2), 0.7f);
    });
}

TEST(ZLoss, Gradients) {
  check_gradients({leaf(random({3, 5}, 1, 2))}, [](auto& in) { return z_loss(in[0], softmax(in[0]), 0.3f); });
}

// The logits get gradients from the softmax and from the z-loss, the probabilities from the weights and the balance
// loss.
TEST(Router, GradientsOfEverythingTogether) {
  Tensor logits = apart();
  for (std::int64_t i = 0; i < logits.numel(); ++i) logits.data<float>()[i] *= 4;
  check_gradients({leaf(logits)}, [](auto& in) {
    const Softmax s = softmax(in[0]);
    const Variable weight = top_k(s.p_TE, 2, Renormalise::yes).weight_TK;
    const Variable loss = add(balance_loss(s.p_TE, random({2, 5}, 2), 0.7f), z_loss(in[0], s, 0.3f));
    const Variable rows = linear(weight, Variable(random({1, 2}, 3)));  // (4, 1)
    return add(loss, balance_loss(rows, random({1, 1}, 4), 1));         // a weighted sum of rows
  });
}

TEST(Router, RecordsWithoutTokensToo) {
  Variable logits = leaf(Tensor::empty({0, 4}, DType::f32, Device{}));
  const Softmax s = softmax(logits);
  Variable loss = add(balance_loss(s.p_TE, Tensor::zeros({1, 4}, DType::f32, Device{}), 1), z_loss(logits, s, 1));
  EXPECT_EQ(at(loss.value(), 0), 0);
  loss.backward(floats({1}, {1}));
  EXPECT_EQ(logits.grad().shape(), (Shape{0, 4}));
  Variable weight = top_k(s.p_TE, 2, Renormalise::yes).weight_TK;
  EXPECT_TRUE(weight.requires_grad());
}

template <class F>
void expect_error(F f, const std::string& part) {
  try {
    f();
    ADD_FAILURE() << "no error with: " << part;
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(Router, SaysWhatDoesNotFit) {
  const Variable p = leaf(apart());
  expect_error([&] { top_k(p, 6, Renormalise::no); }, "top_k: wanted 6 of 5 experts");
  expect_error([&] { top_k(p, 0, Renormalise::no); }, "top_k: wanted 0 of 5 experts");
  expect_error([&] { balance_loss(p, random({3, 5}, 1), 1); }, "loads (3, 5) do not fit probabilities (4, 5)");
  expect_error([&] { balance_loss(p, random({2, 4}, 1), 1); }, "loads (2, 4) do not fit probabilities (4, 5)");
  expect_error([&] { softmax(Variable(cast(apart(), DType::bf16))); }, "wanted f32 scores (tokens, experts), got bf16");
  expect_error([&] { z_loss(leaf(random({4, 3}, 1)), softmax(p), 1); }, "z_loss: the softmax of (4, 5)");
}

}  // namespace
}  // namespace switchyard
