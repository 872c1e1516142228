#include <algorithm>
#include <set>

#include "kernels/cases.h"
#include "kernels/random.h"

namespace switchyard::bench {
namespace {

constexpr DType kFloats[] = {DType::bf16, DType::f32};
constexpr DType kF32 = DType::f32, kBf16 = DType::bf16, kI32 = DType::i32;

// Where the rows of each expert begin: equal shares, or shares that fall as 1, 1/2, 1/3, ... (Zipf).
Tensor offsets_of(std::int64_t rows, std::int64_t experts, bool equal, Device device) {
  std::vector<double> share;
  for (std::int64_t e = 1; e <= experts; ++e) share.push_back(equal ? 1.0 : 1.0 / static_cast<double>(e));
  double all = 0, sum = 0;
  for (const double each : share) all += each;
  std::vector<std::int32_t> begin{0};
  for (const double each : share)
    begin.push_back(static_cast<std::int32_t>((sum += each) / all * static_cast<double>(rows) + 1e-6));
  return indices(begin, {experts + 1}, device);
}

}  // namespace

void add_grouped(Recipes& recipes, Scale s) {
  const std::int64_t n = s.tokens, experts = 8, out = 2 * s.ff(), in = s.dim;
  const std::string shape = text("N ", n, " E ", experts, " O ", out, " I ", in);
  const double flops = 2 * static_cast<double>(n) * static_cast<double>(out) * static_cast<double>(in);
  struct Load {
    const char* what;
    bool equal;
    std::int64_t rows_each;
  };
  for (const Load load : {Load{"equal shares, known to the host", true, n / experts}, Load{"equal shares", true, 0},
                          Load{"Zipf shares", false, 0}}) {
    for (const Trans trans : {Trans::yes, Trans::no}) {
      const bool forward = trans == Trans::yes;
      recipes.push_back({"grouped_matmul", text("bf16, ", forward ? "y = x w^T, " : "dx = dy w, ", load.what), [=] {
                           return Case{shape, Bound::bf16, flops, "2 N O I",
                                       [&k = s.k(), trans, each = load.rows_each,
                                        offsets = offsets_of(n, experts, load.equal, s.device),
                                        w = random_weight({experts, out, in}, kBf16, s.device),
                                        y = Tensor::empty({n, forward ? out : in}, kBf16, s.device),
                                        x = random({n, forward ? in : out}, kBf16, s.device)]() mutable {
                                         k.grouped_matmul(y, x, w, offsets, each, trans);
                                       }};
                         }});
    }
    recipes.push_back({"grouped_matmul_dw", text("bf16, f32 dw += dy^T x, ", load.what), [=] {
                         return Case{
                             shape, Bound::bf16, flops, "2 N O I",
                             [&k = s.k(), each = load.rows_each, offsets = offsets_of(n, experts, load.equal, s.device),
                              dw = random({experts, out, in}, kF32, s.device), dy = random({n, out}, kBf16, s.device),
                              x = random({n, in}, kBf16, s.device)]() mutable {
                               k.grouped_matmul_dw(dw, dy, x, offsets, each, Into::accumulate);
                             }};
                       }});
  }
}

void add_rows(Recipes& recipes, Scale s) {
  const std::int64_t t = s.tokens, d = s.dim, v = s.words(), n = t * Routed::kChoices;
  const std::string routed_shape = text("T ", t, " N ", n, " D ", d);
  const auto td = static_cast<double>(t * d), nd = static_cast<double>(n * d), ts = static_cast<double>(t),
             ns = static_cast<double>(n);
  recipes.push_back(
      {"gather_rows", "embedding, f32 to bf16", [=] {
         return Case{text("T ", t, " V ", v, " D ", d), Bound::memory, 6 * td + 4 * ts, "6 T D + 4 T",
                     [&k = s.k(), y = Tensor::empty({t, d}, kBf16, s.device), x = random({v, d}, kF32, s.device),
                      index = indices(random_words(t, v), {t}, s.device)]() mutable { k.gather_rows(y, x, index); }};
       }});
  recipes.push_back({"gather_rows", "dispatch, bf16", [=] {
                       return Case{
                           routed_shape, Bound::memory, 4 * nd + 4 * ns, "4 N D + 4 N",
                           [&k = s.k(), y = Tensor::empty({n, d}, kBf16, s.device), x = random({t, d}, kBf16, s.device),
                            index = Routed(t, s.device).token_N]() mutable { k.gather_rows(y, x, index); }};
                     }});
  recipes.push_back({"scatter_ids", "", [=] {
                       return Case{routed_shape, Bound::memory, 16 * ns, "16 N",
                                   [&k = s.k(), id = Tensor::empty({n}, kI32, s.device),
                                    r = Routed(t, s.device)]() mutable { k.scatter_ids(id, r.slot_TK, r.slot_TK); }};
                     }});
  recipes.push_back(
      {"scatter_add_rows", "embedding, f32 += bf16", [=] {
         const std::vector<std::int32_t> words = random_words(t, v);
         const std::size_t met = std::set<std::int32_t>(words.begin(), words.end()).size();
         return Case{text("T ", t, " D ", d, ", W ", met, " words met"), Bound::memory,
                     2 * td + 8 * static_cast<double>(met) * static_cast<double>(d) + 4 * ts, "2 T D + 8 W D + 4 T",
                     [&k = s.k(), y = random({v, d}, kF32, s.device), x = random({t, d}, kBf16, s.device),
                      index = indices(words, {t}, s.device)]() mutable { k.scatter_add_rows(y, x, index); }};
       }});
  for (const DType dtype : kFloats) {
    const auto b = static_cast<double>(size_of(dtype));
    recipes.push_back(
        {"combine_rows", text(dtype), [=] {
           return Case{routed_shape, Bound::memory, b * (nd + td) + 8 * ns, text(b, " (N + T) D + 8 N"),
                       [&k = s.k(), y = Tensor::empty({t, d}, dtype, s.device), x = random({n, d}, dtype, s.device),
                        r = Routed(t, s.device)]() mutable { k.combine_rows(y, x, r.slot_TK, r.weight_TK); }};
         }});
    recipes.push_back({"combine_rows_backward", text(dtype), [=] {
                         return Case{routed_shape, Bound::memory, b * (2 * nd + td) + 12 * ns,
                                     text(b, " (2 N + T) D + 12 N"),
                                     [&k = s.k(), dx = Tensor::empty({n, d}, dtype, s.device),
                                      dweight = Tensor::empty({t, Routed::kChoices}, kF32, s.device),
                                      dy = random({t, d}, dtype, s.device), x = random({n, d}, dtype, s.device),
                                      r = Routed(t, s.device)]() mutable {
                                       k.combine_rows_backward(dx, dweight, dy, x, r.slot_TK, r.weight_TK);
                                     }};
                       }});
    recipes.push_back({"dropout", text(dtype), [=] {
                         const DropoutMask mask{.key = {1, 2}, .rate = 0.4f, .width = d};
                         return Case{routed_shape, Bound::memory, 2 * b * nd + 4 * ns, text(2 * b, " N D + 4 N"),
                                     [&k = s.k(), mask, y = Tensor::empty({n, d}, dtype, s.device),
                                      x = random({n, d}, dtype, s.device),
                                      r = Routed(t, s.device)]() mutable { k.dropout(y, x, r.token_N, {}, mask); }};
                       }});
  }
}

// Far more tokens than a step has: a token's row is 32 or 256 bytes, and all of them together must leave the caches.
void add_router(Recipes& recipes, Scale s) {
  for (const std::int64_t e : {8, 64}) {
    const std::int64_t t = s.tokens * 512 / e, k_each = 2, groups = std::max<std::int64_t>(1, t / 2048);
    const std::string shape = text("T ", t, " E ", e), chosen_shape = text(shape, " K ", k_each),
                      variant = text("E ", e);
    const auto te = static_cast<double>(t * e), tk = static_cast<double>(t * k_each), ts = static_cast<double>(t);
    const auto p_TE = [=] { return random({t, e}, kF32, s.device, 0.001, 1); };
    const auto f_GE = [=] { return random({groups, e}, kF32, s.device, 0.001, 1); };
    const auto empty = [=](Shape shape) { return Tensor::empty(shape, kF32, s.device); };
    const auto one = [=] { return random({1}, kF32, s.device, 0.5, 1); };

    recipes.push_back({"softmax", variant, [=] {
                         return Case{shape, Bound::memory, 8 * te + 4 * ts, "8 T E + 4 T",
                                     [&k = s.k(), p = empty({t, e}), lse = empty({t}), x = p_TE()]() mutable {
                                       k.softmax(p, lse, x);
                                     }};
                       }});
    recipes.push_back({"softmax_backward", variant, [=] {
                         return Case{shape, Bound::memory, 12 * te, "12 T E",
                                     [&k = s.k(), dx = empty({t, e}), dp = p_TE(), p = p_TE()]() mutable {
                                       k.softmax_backward(dx, dp, p);
                                     }};
                       }});
    recipes.push_back({"top_k", variant, [=] {
                         return Case{
                             chosen_shape, Bound::memory, 4 * te + 8 * tk, "4 T E + 8 T K",
                             [&k = s.k(), w = empty({t, k_each}), expert = Tensor::empty({t, k_each}, kI32, s.device),
                              p = p_TE()]() mutable { k.top_k(w, expert, p, Renormalise::yes); }};
                       }});
    recipes.push_back({"top_k_backward", variant, [=] {
                         return Case{
                             chosen_shape, Bound::memory, 4 * te + 16 * tk, "4 T E + 16 T K",
                             [&k = s.k(), dp = empty({t, e}), dw = random({t, k_each}, kF32, s.device),
                              w = random({t, k_each}, kF32, s.device, 0.1, 1),
                              expert = indices(random_choices(t, e), {t, k_each}, s.device),
                              p = p_TE()]() mutable { k.top_k_backward(dp, dw, w, expert, p, Renormalise::yes); }};
                       }});
    recipes.push_back({"balance_loss", variant, [=] {
                         return Case{shape, Bound::memory, 4 * te, "4 T E",
                                     [&k = s.k(), loss = empty({1}), p = p_TE(), f = f_GE()]() mutable {
                                       k.balance_loss(loss, p, f, 0.01f);
                                     }};
                       }});
    recipes.push_back({"balance_loss_backward", variant, [=] {
                         return Case{shape, Bound::memory, 4 * te, "4 T E",
                                     [&k = s.k(), dp = empty({t, e}), dloss = one(), f = f_GE()]() mutable {
                                       k.balance_loss_backward(dp, dloss, f, 0.01f);
                                     }};
                       }});
    recipes.push_back({"z_loss_backward", variant, [=] {
                         return Case{shape, Bound::memory, 8 * te + 4 * ts, "8 T E + 4 T",
                                     [&k = s.k(), dx = empty({t, e}), dloss = one(), lse = random({t}, kF32, s.device),
                                      p = p_TE()]() mutable { k.z_loss_backward(dx, dloss, lse, p, 0.001f); }};
                       }});
    recipes.push_back({"entropy", variant, [=] {
                         return Case{shape, Bound::memory, 4 * te, "4 T E",
                                     [&k = s.k(), sum = empty({1}), p = p_TE()]() mutable { k.entropy(sum, p); }};
                       }});
    recipes.push_back({"observe_routing", variant, [=] {
                         const auto counts = [&](std::int64_t n) { return Tensor::empty({n}, kI32, s.device); };
                         return Case{chosen_shape, Bound::memory, 12 * te + 12 * tk, "12 T E + 12 T K",
                                     [&k = s.k(),
                                      sums = RoutingSums{empty({e}), counts(k_each), empty({2}), empty({1}), counts(1)},
                                      logits = random({t, e}, kF32, s.device), before = random({t, e}, kF32, s.device),
                                      p = p_TE(), w = random({t, k_each}, kF32, s.device, 0.1, 1),
                                      expert = indices(random_choices(t, e), {t, k_each}, s.device)]() mutable {
                                       k.observe_routing(sums, logits, before, p, w, expert, expert);
                                     }};
                       }});
  }
  const std::int64_t t = s.tokens * 512;
  recipes.push_back({"z_loss", "", [=] {
                       return Case{text("T ", t), Bound::memory, 4 * static_cast<double>(t), "4 T",
                                   [&k = s.k(), loss = Tensor::empty({1}, kF32, s.device),
                                    lse = random({t}, kF32, s.device)]() mutable { k.z_loss(loss, lse, 0.001f); }};
                     }});
}

void add_placement(Recipes& recipes, Scale s) {
  const std::int64_t e = 8, k_each = 2, t = s.tokens * 128, group = std::min<std::int64_t>(2048, t), groups = t / group;
  const auto tk = static_cast<double>(t * k_each);
  const std::string shape = text("T ", t, " K ", k_each, " E ", e, ", groups of ", group);
  const auto chosen = [=] { return indices(random_choices(t, e), {t, k_each}, s.device); };
  const auto empty = [=](Shape shape) { return Tensor::empty(shape, kI32, s.device); };
  recipes.push_back({"count_choices", "", [=] {
                       return Case{shape, Bound::memory, 4 * tk, "4 T K",
                                   [=, &k = s.k(), counts = empty({groups, k_each, e}), expert = chosen()]() mutable {
                                     k.count_choices(counts, expert, {.experts = e, .group = group});
                                   }};
                     }});
  recipes.push_back(
      {"choice_fractions", "", [=] {
         const std::int64_t many = s.tokens * 32;
         return Case{text("G ", many, " K ", k_each, " E ", e), Bound::memory,
                     4 * static_cast<double>(many * (k_each + 1) * e), "4 G (K + 1) E",
                     [=, &k = s.k(), f = Tensor::empty({many, e}, kF32, s.device),
                      counts = indices(random_words(many * k_each * e, group), {many, k_each, e}, s.device)]() mutable {
                       k.choice_fractions(f, counts, k_each, static_cast<float>(group));
                     }};
       }});
  struct Kind {
    const char* what;
    Placement placement;
  };
  const std::int64_t capacity = (5 * k_each * group + 4 * e - 1) / (4 * e);
  for (const Kind kind :
       {Kind{"dropless", {.experts = e, .group = group}},
        Kind{"capacity 1.25, padded", {.experts = e, .group = group, .capacity = capacity, .padded = true}}})
    recipes.push_back({"place", kind.what, [=] {
                         const std::int64_t n = kind.placement.rows(t, k_each);
                         const Tensor expert = chosen();
                         Tensor slot = empty({t, k_each});
                         if (kind.placement.capacity > 0) s.k().admit(slot, expert, kind.placement);
                         return Case{text(shape, " N ", n), Bound::memory, 8 * tk + 4 * static_cast<double>(n),
                                     "8 T K + 4 N", [=, &k = s.k(), token = empty({n}), count = empty({e})]() mutable {
                                       k.place(slot, token, count, expert, kind.placement);
                                     }};
                       }});
  recipes.push_back({"admit", "capacity 1.25", [=] {
                       return Case{shape, Bound::memory, 8 * tk, "8 T K",
                                   [=, &k = s.k(), slot = empty({t, k_each}), expert = chosen()]() mutable {
                                     k.admit(slot, expert, {.experts = e, .group = group, .capacity = capacity});
                                   }};
                     }});
}

}  // namespace switchyard::bench
