#include <algorithm>

#include "kernels/cases.h"
#include "kernels/random.h"

namespace switchyard::bench {
namespace {

constexpr DType kF32 = DType::f32, kI32 = DType::i32;

}  // namespace

// What only some routers do, with 64 experts in 8 groups and 4 choices.
void add_other_routers(Recipes& recipes, Scale s) {
  const std::int64_t e = 64, choices = 4, blocks = 8, t = std::max<std::int64_t>(s.tokens * 8, 64),
                     group = std::min<std::int64_t>(2048, t), groups = t / group;
  const std::string shape = text("T ", t, " E ", e), chosen_shape = text(shape, " K ", choices, ", groups of ", group);
  const auto te = static_cast<double>(t * e), tk = static_cast<double>(t * choices);
  const auto numbers = [=](std::int64_t width) { return random({t, width}, kF32, s.device, 0.001, 1); };
  const auto empty = [=](std::int64_t width) { return Tensor::empty({t, width}, kF32, s.device); };
  const auto chosen = [=](std::int64_t width) {  // different experts of each token
    std::vector<std::int32_t> expert;
    for (std::int64_t i = 0; i < t; ++i)
      for (std::int64_t k = 0; k < width; ++k) expert.push_back(static_cast<std::int32_t>((i * i / 3 + k) % e));
    return indices(expert, {t, width}, s.device);
  };
  const Placement placement{.experts = e, .group = group, .capacity = std::max<std::int64_t>(1, choices * group / e)};

  recipes.push_back({"sigmoid", "", [=] {
                       return Case{shape, Bound::memory, 12 * te, "12 T E",
                                   [&k = s.k(), y = empty(e), share = empty(e), x = numbers(e)]() mutable {
                                     k.sigmoid(y, share, x);
                                   }};
                     }});
  recipes.push_back({"sigmoid_backward", "", [=] {
                       return Case{shape, Bound::memory, 16 * te, "16 T E",
                                   [&k = s.k(), dx = empty(e), ds = numbers(e), dshare = numbers(e),
                                    y = numbers(e)]() mutable { k.sigmoid_backward(dx, ds, dshare, y); }};
                     }});
  recipes.push_back({"noisy_logits", "", [=] {
                       return Case{shape, Bound::memory, 20 * te, "20 T E",
                                   [&k = s.k(), y = empty(e), sigma = empty(e), clean = numbers(e), raw = numbers(e),
                                    n = numbers(e)]() mutable { k.noisy_logits(y, sigma, clean, raw, n, 0.01f); }};
                     }});
  recipes.push_back({"noisy_logits_backward", "", [=] {
                       return Case{shape, Bound::memory, 20 * te, "20 T E",
                                   [&k = s.k(), draw = empty(e), dy = numbers(e), dsigma = numbers(e), raw = numbers(e),
                                    n = numbers(e)]() mutable { k.noisy_logits_backward(draw, dy, dsigma, raw, n); }};
                     }});
  recipes.push_back(
      {"choice_probability", "", [=] {
         return Case{shape, Bound::memory, 12 * te, "12 T E",
                     [&k = s.k(), p = empty(e), clean = numbers(e), sigma = numbers(e), best = numbers(choices + 1),
                      expert = chosen(choices + 1)]() mutable { k.choice_probability(p, clean, sigma, best, expert); }};
       }});
  recipes.push_back({"choice_probability_backward", "", [=] {
                       return Case{shape, Bound::memory, 20 * te, "20 T E",
                                   [=, &k = s.k(), dclean = empty(e), dsigma = empty(e), dbest = empty(choices + 1),
                                    dp = numbers(e), clean = numbers(e), sigma = numbers(e),
                                    best = numbers(choices + 1), expert = chosen(choices + 1)]() mutable {
                                     k.choice_probability_backward(dclean, dsigma, dbest, dp, clean, sigma, best,
                                                                   expert);
                                   }};
                     }});
  recipes.push_back(
      {"squared_variation", "", [=] {
         return Case{
             text("E ", e), Bound::latency, 8 * static_cast<double>(e), "8 E",
             [=, &k = s.k(), loss = Tensor::empty({1}, kF32, s.device), dsum = Tensor::empty({1, e}, kF32, s.device),
              sum = random({1, e}, kF32, s.device, 1, 2)]() mutable { k.squared_variation(loss, dsum, sum, 0.1f); }};
       }});
  recipes.push_back({"choose", "", [=] {
                       return Case{chosen_shape, Bound::memory, 12 * tk, "12 T K",
                                   [=, &k = s.k(), w = empty(choices), expert = chosen(choices),
                                    p = numbers(e)]() mutable { k.choose(w, expert, p, Renormalise::yes); }};
                     }});
  recipes.push_back(
      {"selection_scores", "8 groups, biased", [=] {
         return Case{shape, Bound::memory, 8 * te, "8 T E",
                     [=, &k = s.k(), score = empty(e), p = numbers(e), bias = random({e}, kF32, s.device)]() mutable {
                       k.selection_scores(score, p, bias, {.groups = blocks, .met = 4, .best = 2});
                     }};
       }});
  recipes.push_back({"thin_choices", "", [=] {
                       return Case{chosen_shape, Bound::memory, 12 * tk, "12 T K",
                                   [=, &k = s.k(), expert = chosen(choices), w = numbers(choices),
                                    u = numbers(choices)]() mutable { k.thin_choices(expert, w, u, 0.5f); }};
                     }});
  recipes.push_back({"count_meetings", "", [=] {
                       return Case{chosen_shape, Bound::memory, 4 * tk, "4 T K",
                                   [=, &k = s.k(), met = Tensor::empty({groups, blocks}, kI32, s.device),
                                    expert = chosen(choices)]() mutable { k.count_meetings(met, expert, placement); }};
                     }});
  recipes.push_back(
      {"adjust_bias", "", [=] {
         return Case{text("E ", e), Bound::latency, 12 * static_cast<double>(e), "12 E",
                     [=, &k = s.k(), bias = random({e}, kF32, s.device),
                      count = random({e}, kF32, s.device, 1, 2)]() mutable { k.adjust_bias(bias, count, 0.001f); }};
       }});
  recipes.push_back({"admit_by_priority", "the surest tokens first", [=] {
                       return Case{chosen_shape, Bound::memory, 12 * tk, "12 T K",
                                   [=, &k = s.k(), slot = Tensor::empty({t, choices}, kI32, s.device),
                                    expert = chosen(choices), score = numbers(1)]() mutable {
                                     k.admit_by_priority(slot, expert, score, placement, Priority::choice_then_score);
                                   }};
                     }});
  recipes.push_back({"admit_by_priority", "experts choose", [=] {
                       return Case{shape, Bound::memory, 12 * te, "12 T E",
                                   [=, &k = s.k(), slot = Tensor::empty({t, e}, kI32, s.device), expert = chosen(e),
                                    score = numbers(e)]() mutable {
                                     k.admit_by_priority(slot, expert, score, placement, Priority::score);
                                   }};
                     }});
  recipes.push_back({"capped_scores", "100 rounds", [=] {
                       return Case{shape, Bound::latency, 8 * te, "8 T E",
                                   [=, &k = s.k(), score = empty(e), p = numbers(e)]() mutable {
                                     k.capped_scores(score, p, placement, {.experts = 4});
                                   }};
                     }});
  const std::int64_t n = t * e;
  recipes.push_back({"normal", "", [=] {
                       return Case{text("n ", n), Bound::memory, 4 * static_cast<double>(n), "4 n",
                                   [=, &k = s.k(), y = empty(e)]() mutable {
                                     k.normal(y, {1, 2}, 0);
                                   }};
                     }});
  recipes.push_back({"jitter", "", [=] {
                       return Case{text("n ", n), Bound::memory, 8 * static_cast<double>(n), "8 n",
                                   [=, &k = s.k(), y = empty(e), x = numbers(e)]() mutable {
                                     k.jitter(y, x, {1, 2}, 0, 0.01f);
                                   }};
                     }});
}

}  // namespace switchyard::bench
