#include "autograd/ops.h"
#include "grad_check.h"

namespace switchyard {
namespace {

using test::check_gradients, test::floats, test::ints, test::random;

Variable leaf(Tensor t) { return Variable(std::move(t), true); }

TEST(Sigmoid, GradientsOfScoresAndOfShares) {
  check_gradients({leaf(random({3, 5}, 1, 2))}, [](auto& in) { return sigmoid(in[0]).s_TE; });
  check_gradients({leaf(random({3, 5}, 1, 2))}, [](auto& in) { return sigmoid(in[0]).share_TE; });
  check_gradients({leaf(random({3, 5}, 1, 2))}, [](auto& in) {
    const Sigmoid s = sigmoid(in[0]);
    return add(s.s_TE, s.share_TE);
  });
}

TEST(NoisyLogits, Gradients) {
  const Tensor normal = random({3, 5}, 4, 2);
  check_gradients({leaf(random({3, 5}, 1)), leaf(random({3, 5}, 2, 3))},
                  [&](auto& in) { return noisy_logits(in[0], in[1], normal, 0.01f).logits_TE; });
  check_gradients({leaf(random({3, 5}, 1)), leaf(random({3, 5}, 2, 3))}, [&](auto& in) {
    const Noisy noisy = noisy_logits(in[0], in[1], normal, 0.01f);
    return add(noisy.logits_TE, noisy.sigma_TE);
  });
}

// The best noisy logits are at least 0.1 apart, so that a step changes no choice.
TEST(ChoiceProbability, GradientsToTheLogitsTheNoiseAndTheRivals) {
  const Tensor noisy = floats({2, 4}, {.9f, .1f, .5f, -.3f, -.2f, .7f, .3f, 1});
  check_gradients({leaf(random({2, 4}, 1)), leaf(floats({2, 4}, {1, 1.5f, .8f, 1, 2, 1, 1.2f, .9f})), leaf(noisy)},
                  [](auto& in) { return choice_probability(in[0], in[1], top_k(in[2], 3, Renormalise::no)); });
}

TEST(Choose, Gradients) {
  const Tensor expert = ints({2, 2}, {3, 0, 1, 2});
  const Tensor p = floats({2, 4}, {.3f, .1f, .2f, .4f, .1f, .3f, .4f, .2f});
  for (Renormalise renormalise : {Renormalise::no, Renormalise::yes})
    check_gradients(
        {leaf(p)}, [&](auto& in) { return choose(in[0], expert, renormalise); }, 1e-2, 3e-3);
}

TEST(SpreadChoices, IsTheTransposeOfChoose) {
  const Tensor expert = ints({2, 2}, {3, 0, 1, 2});
  check_gradients({leaf(random({2, 2}, 1))}, [&](auto& in) { return spread_choices(in[0], expert, 4); });
  test::expect_near(spread_choices(leaf(floats({2, 2}, {1, 2, 3, 4})), expert, 4).value(),
                    floats({2, 4}, {2, 0, 0, 1, 0, 3, 4, 0}), 0);
}

TEST(Jitter, GradientsAreJitteredAlike) {
  check_gradients({leaf(random({3, 4}, 1))}, [](auto& in) { return jitter(in[0], {1, 2}, 7, 0.3f); });
}

// Rows 2 and 0 swap names; the last drops nothing.
TEST(Dropout, Gradients) {
  const Tensor id = ints({3}, {7, -1, 3}), order = ints({3}, {2, 0, 1});
  for (const Tensor& by : {Tensor(), order})
    check_gradients({leaf(random({3, 5}, 1))}, [&](auto& in) {
      return dropout(in[0], id, by, {.key = philox_key(1, "test"), .rate = .5f, .width = 9, .first = 2});
    });
}

}  // namespace
}  // namespace switchyard
