#include <algorithm>

#include "kernels/cases.h"
#include "kernels/random.h"

namespace switchyard::bench {
namespace {

constexpr DType kFloats[] = {DType::bf16, DType::f32};
constexpr DType kF32 = DType::f32, kBf16 = DType::bf16;

double size(DType dtype) { return static_cast<double>(size_of(dtype)); }

}  // namespace

double copies_of(const Kernels& k, Shape shape) {
  const PackedSize packed = k.packed_size(shape, kBf16);
  return static_cast<double>((packed.plain ? 2 * shape.numel() : 0) + packed.forward + packed.backward);
}

void add_memory(Recipes& recipes, Scale s) {
  const std::int64_t n = s.tokens * s.dim;
  const auto count = static_cast<double>(n);
  recipes.push_back({"zero", "f32", [=] {
                       return Case{text("n ", n), Bound::memory, 4 * count, "4 n",
                                   [&k = s.k(), x = random({n}, kF32, s.device)]() mutable { k.zero(x); }};
                     }});
  for (const auto& [y_type, x_type] : {std::pair(kBf16, kF32), std::pair(kF32, kBf16)})
    recipes.push_back({"copy", text(x_type, " to ", y_type), [=] {
                         return Case{text("n ", n), Bound::memory, 6 * count, "6 n",
                                     [&k = s.k(), y = Tensor::empty({n}, y_type, s.device),
                                      x = random({n}, x_type, s.device)]() mutable { k.copy(y, x); }};
                       }});
  for (const auto& [y_type, x_type] : {std::pair(kBf16, kBf16), std::pair(kF32, kBf16), std::pair(kF32, kF32)})
    recipes.push_back({"add", text(y_type, " += ", x_type), [=] {
                         const double width = 2 * size(y_type) + size(x_type);
                         return Case{text("n ", n), Bound::memory, width * count, text(width, " n"),
                                     [&k = s.k(), y = random({n}, y_type, s.device),
                                      x = random({n}, x_type, s.device)]() mutable { k.add(y, x); }};
                       }});
  for (const DType dtype : kFloats)
    recipes.push_back({"scale", text(dtype), [=] {
                         const double width = 2 * size(dtype);
                         return Case{text("n ", n), Bound::memory, width * count, text(width, " n"),
                                     [&k = s.k(), x = random({n}, dtype, s.device),
                                      by = random({1}, kF32, s.device, 0.9999, 1)]() mutable { k.scale(x, by); }};
                       }});
}

void add_products(Recipes& recipes, Scale s) {
  const auto flops = [](std::int64_t t, std::int64_t o, std::int64_t i) {
    return 2 * static_cast<double>(t) * static_cast<double>(o) * static_cast<double>(i);
  };
  for (const DType dtype : kFloats)  // the gradient of a weight
    recipes.push_back({"matmul", text(dtype, ", f32 dw += dy^T x"), [=] {
                         const std::int64_t t = dtype == kBf16 ? s.tokens : s.tokens / 4, o = 2 * s.ff(), i = s.dim;
                         return Case{
                             text("T ", t, " O ", o, " I ", i), product_of(dtype), flops(t, o, i), "2 T O I",
                             [&k = s.k(), dw = random({o, i}, kF32, s.device), dy = random({t, o}, dtype, s.device),
                              x = random({t, i}, dtype, s.device)]() mutable {
                               k.matmul(dw, dy, x, Trans::yes, Trans::no, Into::accumulate);
                             }};
                       }});
  recipes.push_back({"pack", "bf16", [=] {
                       const Shape shape{std::max<std::int64_t>(1, s.tokens / 8192), 2 * s.ff(), s.dim};
                       const Tensor master = random(shape, kF32, s.device);
                       const auto n = static_cast<double>(shape.numel());
                       const double copies = copies_of(s.k(), shape);
                       return Case{
                           text("n ", shape.numel()), Bound::memory, 4 * n + copies, text(4 + copies / n, " n"),
                           [&k = s.k(), w = make_weight(master, kBf16), master]() mutable { k.pack(w, master); }};
                     }});
  struct Product {
    const char* what;
    Trans trans;
    DType x, y;
    std::int64_t tokens, out;
  };
  for (const Product p : {Product{"y = x w^T", Trans::yes, kBf16, kBf16, s.tokens, 2 * s.ff()},
                          Product{"dx = dy w", Trans::no, kBf16, kBf16, s.tokens, 2 * s.ff()},
                          Product{"f32 logits = x w^T", Trans::yes, kBf16, kF32, s.tokens / 16, s.words()},
                          Product{"y = x w^T", Trans::yes, kF32, kF32, s.tokens / 4, 2 * s.ff()}})
    recipes.push_back(
        {"weight_matmul", text(p.x, ", ", p.what), [=] {
           const std::int64_t from = p.trans == Trans::yes ? s.dim : p.out, to = p.trans == Trans::yes ? p.out : s.dim;
           return Case{text("T ", p.tokens, " O ", p.out, " I ", s.dim), product_of(p.x), flops(p.tokens, p.out, s.dim),
                       "2 T O I",
                       [&k = s.k(), p, y = Tensor::empty({p.tokens, to}, p.y, s.device),
                        w = random_weight({p.out, s.dim}, p.x, s.device),
                        x = random({p.tokens, from}, p.x, s.device)]() mutable { k.weight_matmul(y, x, w, p.trans); }};
         }});
}

void add_norms(Recipes& recipes, Scale s) {
  const std::int64_t r = s.tokens, d = s.dim;
  const std::string shape = text("R ", r, " D ", d);
  const auto rows = static_cast<double>(r), elements = static_cast<double>(r * d);
  for (const DType dtype : kFloats) {
    const double b = size(dtype);
    recipes.push_back({"rms_norm", text(dtype), [=] {
                         return Case{shape, Bound::memory, 2 * b * elements + 4 * rows, text(2 * b, " R D + 4 R"),
                                     [&k = s.k(), y = Tensor::empty({r, d}, dtype, s.device),
                                      rstd = Tensor::empty({r}, kF32, s.device), x = random({r, d}, dtype, s.device),
                                      w = random({d}, kF32, s.device)]() mutable { k.rms_norm(y, rstd, x, w, 1e-6f); }};
                       }});
    recipes.push_back({"rms_norm_backward", text(dtype), [=] {
                         return Case{shape, Bound::memory, 3 * b * elements + 4 * rows, text(3 * b, " R D + 4 R"),
                                     [&k = s.k(), dx = Tensor::empty({r, d}, dtype, s.device),
                                      dw = Tensor::empty({d}, kF32, s.device), dy = random({r, d}, dtype, s.device),
                                      x = random({r, d}, dtype, s.device), w = random({d}, kF32, s.device),
                                      rstd = random({r}, kF32, s.device, 0.5, 2)]() mutable {
                                       k.rms_norm_backward(dx, dw, dy, x, w, rstd);
                                     }};
                       }});
    recipes.push_back(
        {"add_rms_norm", text(dtype), [=] {
           return Case{shape, Bound::memory, 4 * b * elements + 4 * rows, text(4 * b, " R D + 4 R"),
                       [&k = s.k(), y = Tensor::empty({r, d}, dtype, s.device),
                        sum = Tensor::empty({r, d}, dtype, s.device), rstd = Tensor::empty({r}, kF32, s.device),
                        a = random({r, d}, dtype, s.device), x = random({r, d}, dtype, s.device),
                        w = random({d}, kF32, s.device)]() mutable { k.add_rms_norm(y, sum, rstd, a, x, w, 1e-6f); }};
         }});
    recipes.push_back({"add_rms_norm_backward", text(dtype), [=] {
                         return Case{
                             shape, Bound::memory, 4 * b * elements + 4 * rows, text(4 * b, " R D + 4 R"),
                             [&k = s.k(), dsum = Tensor::empty({r, d}, dtype, s.device),
                              dw = Tensor::empty({d}, kF32, s.device), dy = random({r, d}, dtype, s.device),
                              dskip = random({r, d}, dtype, s.device), sum = random({r, d}, dtype, s.device),
                              w = random({d}, kF32, s.device), rstd = random({r}, kF32, s.device, 0.5, 2)]() mutable {
                               k.add_rms_norm_backward(dsum, dw, dy, dskip, sum, w, rstd);
                             }};
                       }});
  }
}

void add_attention(Recipes& recipes, Scale s) {
  for (const DType dtype : kFloats) {
    const std::int64_t seq = std::min<std::int64_t>(2048, s.tokens), tokens = s.tokens, d = 128, normed = 16, all = 24;
    const AttentionShape a{.batch = tokens / seq, .seq = seq, .n_heads = 8, .n_kv_heads = 8, .head_dim = d};
    const std::string shape = text("T ", tokens, ", 8 + 2 x 8 heads of d ", d);
    const double b = size(dtype), rows = static_cast<double>(tokens * all * d),
                 q_and_k = static_cast<double>(tokens * normed * d),
                 statistics = 4 * static_cast<double>(tokens * normed);
    recipes.push_back({"qk_norm_rope", text(dtype), [=] {
                         return Case{shape, Bound::memory, 2 * b * rows + statistics, text(2 * b, " T 24 d + 4 T 16"),
                                     [&k = s.k(), a, y = Tensor::empty({tokens, all * d}, dtype, s.device),
                                      rstd = Tensor::empty({tokens, normed}, kF32, s.device),
                                      x = random({tokens, all * d}, dtype, s.device), wq = random({d}, kF32, s.device),
                                      wk = random({d}, kF32, s.device)]() mutable {
                                       k.qk_norm_rope(y, rstd, x, wq, wk, 1e-6f, a, Rope{});
                                     }};
                       }});
    recipes.push_back(
        {"qk_norm_rope_backward", text(dtype), [=] {
           return Case{shape, Bound::memory, 2 * b * rows + b * q_and_k + statistics,
                       text(2 * b, " T 24 d + ", b, " T 16 d + 4 T 16"),
                       [&k = s.k(), a, dx = Tensor::empty({tokens, all * d}, dtype, s.device),
                        dwq = Tensor::empty({d}, kF32, s.device), dwk = Tensor::empty({d}, kF32, s.device),
                        dy = random({tokens, all * d}, dtype, s.device), x = random({tokens, all * d}, dtype, s.device),
                        wq = random({d}, kF32, s.device), wk = random({d}, kF32, s.device),
                        rstd = random({tokens, normed}, kF32, s.device, 0.5, 2)]() mutable {
                         k.qk_norm_rope_backward(dx, dwq, dwk, dy, x, wq, wk, rstd, a, Rope{});
                       }};
         }});
  }
  struct Heads {
    DType dtype;
    std::int64_t seq, heads, kv_heads, dim, tokens;
    RelativeBuckets buckets{};
  };
  for (const Heads h : {Heads{kBf16, 4096, 8, 8, 128, s.tokens}, Heads{kBf16, 2048, 8, 8, 128, s.tokens},
                        Heads{kBf16, 4096, 16, 16, 64, s.tokens}, Heads{kBf16, 4096, 8, 2, 128, s.tokens},
                        Heads{kBf16, 2048, 8, 8, 128, s.tokens, {.count = 32, .max_distance = 128}},
                        Heads{kF32, 2048, 8, 8, 128, s.tokens / 16}}) {
    const std::int64_t seq = std::min(h.seq, h.tokens);
    const AttentionShape a{h.tokens / seq, seq, h.heads, h.kv_heads, h.dim};
    const std::string shape = text("B ", a.batch, " S ", seq, " H ", h.heads, " (", h.kv_heads, ") d ", h.dim);
    const std::string variant = text(h.dtype, ", S ", seq, ", d ", h.dim, h.kv_heads < h.heads ? ", grouped" : "",
                                     h.buckets.count > 0 ? ", bias by distance" : "");
    const double product = static_cast<double>(h.tokens * (seq + 1)) * static_cast<double>(h.heads * h.dim);
    const auto rows = [=](std::int64_t width) { return random({h.tokens, width}, h.dtype, s.device); };
    const auto bias = [=] {
      return h.buckets.count > 0 ? random({h.heads, h.buckets.count}, kF32, s.device) : Tensor{};
    };
    recipes.push_back({"attention", variant, [=] {
                         return Case{shape, product_of(h.dtype), 2 * product, "2 causal products, B S (S + 1) H d each",
                                     [&k = s.k(), a, h, y = rows(h.heads * h.dim), qkv = rows(a.width()), b = bias(),
                                      lse = Tensor::empty({a.batch, h.heads, seq}, kF32, s.device)]() mutable {
                                       k.attention(y, lse, qkv, b, a, h.buckets);
                                     }};
                       }});
    recipes.push_back({"attention_backward", variant, [=] {
                         Tensor qkv = rows(a.width()), y = rows(h.heads * h.dim),
                                lse = Tensor::empty({a.batch, h.heads, seq}, kF32, s.device), b = bias();
                         s.k().attention(y, lse, qkv, b, a, h.buckets);
                         return Case{shape, product_of(h.dtype), 5 * product, "5 causal products, B S (S + 1) H d each",
                                     [&k = s.k(), a, h, qkv, y, lse, b, dy = rows(h.heads * h.dim), db = bias(),
                                      dqkv = rows(a.width())]() mutable {
                                       k.attention_backward(dqkv, db, dy, qkv, b, y, lse, a, h.buckets);
                                     }};
                       }});
  }
}

void add_activations(Recipes& recipes, Scale s) {
  struct Kind {
    const char* name;
    Activation kind;
    DType dtype;
  };
  for (const Kind f : {Kind{"SwiGLU", Activation::swiglu, kBf16}, Kind{"SwiGLU", Activation::swiglu, kF32},
                       Kind{"GEGLU", Activation::geglu, kBf16}, Kind{"GELU", Activation::gelu, kBf16},
                       Kind{"ReLU", Activation::relu, kBf16}}) {
    const std::int64_t r = s.tokens, wide = is_gated(f.kind) ? 2 : 1, out = s.ff(), in = wide * out;
    const std::string shape = text("R ", r, " F ", out), variant = text(f.name, " ", f.dtype);
    const double elements = static_cast<double>(r * out), forward = static_cast<double>(1 + wide) * size(f.dtype),
                 backward = static_cast<double>(1 + 2 * wide) * size(f.dtype);
    recipes.push_back({"activation", variant, [=] {
                         return Case{
                             shape, Bound::memory, forward * elements, text(forward, " R F"),
                             [&k = s.k(), f, y = Tensor::empty({r, out}, f.dtype, s.device),
                              x = random({r, in}, f.dtype, s.device)]() mutable { k.activation(y, x, f.kind); }};
                       }});
    recipes.push_back(
        {"activation_backward", variant, [=] {
           return Case{
               shape, Bound::memory, backward * elements, text(backward, " R F"),
               [&k = s.k(), f, dx = Tensor::empty({r, in}, f.dtype, s.device), dy = random({r, out}, f.dtype, s.device),
                x = random({r, in}, f.dtype, s.device)]() mutable { k.activation_backward(dx, dy, x, f.kind); }};
         }});
  }
}

void add_losses(Recipes& recipes, Scale s) {
  const std::int64_t r = s.tokens / 16, v = s.words(), n = s.tokens * s.dim;
  const std::string shape = text("R ", r, " V ", v);
  const auto rows = static_cast<double>(r), elements = static_cast<double>(r * v);
  for (const auto& [logit, gradient] : {std::pair(kF32, kBf16), std::pair(kBf16, kBf16), std::pair(kF32, kF32)})
    recipes.push_back({"cross_entropy", text(logit, " logits, ", gradient, " gradient"), [=] {
                         const double width = size(logit) + size(gradient);
                         return Case{shape, Bound::memory, width * elements + 8 * rows, text(width, " R V + 8 R"),
                                     [&k = s.k(), loss = Tensor::empty({r}, kF32, s.device),
                                      dlogits = Tensor::empty({r, v}, gradient, s.device),
                                      logits = random({r, v}, logit, s.device, -4, 4),
                                      target = indices(random_words(r, v), {r}, s.device)]() mutable {
                                       k.cross_entropy(loss, dlogits, logits, target, 0.001f);
                                     }};
                       }});
  recipes.push_back({"cross_entropy", "f32 logits, loss alone", [=] {
                       return Case{shape, Bound::memory, 4 * elements + 8 * rows, "4 R V + 8 R",
                                   [&k = s.k(), loss = Tensor::empty({r}, kF32, s.device), none = Tensor{},
                                    logits = random({r, v}, kF32, s.device, -4, 4),
                                    target = indices(random_words(r, v), {r}, s.device)]() mutable {
                                     k.cross_entropy(loss, none, logits, target, 0.001f);
                                   }};
                     }});
  recipes.push_back({"cross_entropy_part", "", [=] {
                       return Case{shape, Bound::memory, 4 * elements + 20 * rows, "4 R V + 20 R",
                                   [&k = s.k(), part = Tensor::empty({r, 4}, kF32, s.device),
                                    logits = random({r, v}, kF32, s.device, -4, 4),
                                    target = indices(random_words(r, v), {r}, s.device)]() mutable {
                                     k.cross_entropy_part(part, logits, target);
                                   }};
                     }});
  recipes.push_back({"cross_entropy_whole", "2 ranks, bf16 gradient", [=] {
                       return Case{shape, Bound::memory, 6 * elements + 40 * rows, "6 R V + 40 R",
                                   [&k = s.k(), loss = Tensor::empty({r}, kF32, s.device),
                                    dlogits = Tensor::empty({r, v}, kBf16, s.device),
                                    logits = random({r, v}, kF32, s.device, -4, 4),
                                    target = indices(random_words(r, v), {r}, s.device),
                                    parts = random({2, r, 4}, kF32, s.device, 1, 4)]() mutable {
                                     k.cross_entropy_whole(loss, dlogits, logits, target, parts, 0.001f);
                                   }};
                     }});
  recipes.push_back({"sum", "f32", [=] {
                       return Case{text("n ", n), Bound::memory, 4 * static_cast<double>(n), "4 n",
                                   [&k = s.k(), y = Tensor::empty({1}, kF32, s.device),
                                    x = random({n}, kF32, s.device)]() mutable { k.sum(y, x, Into::overwrite); }};
                     }});
}

}  // namespace switchyard::bench
