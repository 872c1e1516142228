#include "autograd/ops.h"

namespace switchyard {

// For each head of the queries and keys, with n = x, or n = x rstd w where there is a norm:
//   y = n cos + rotate_half(n) sin        rotate_half(a, b) = (-b, a), angle = position theta^(-2i/head_dim)
// Values pass through. Backward rotates by the opposite angle and goes back through the norm.
Variable qk_norm_rope(const Variable& qkv, const Variable& wq, const Variable& wk, float eps, AttentionShape shape,
                      Rope rope) {
  SY_CHECK(qkv.shape() == (Shape{shape.tokens(), shape.width()}), "qk_norm_rope: rows ", qkv.shape(), " for ",
           shape.tokens(), " tokens of width ", shape.width());
  SY_CHECK(shape.head_dim % 2 == 0, "qk_norm_rope: head_dim ", shape.head_dim, " is odd");
  SY_CHECK(bool(wq) == bool(wk), "qk_norm_rope: norm weights for queries and keys, or for neither");
  SY_CHECK(!wq || (wq.shape() == Shape{shape.head_dim} && wk.shape() == wq.shape()), "qk_norm_rope: norm weights ",
           wq.shape(), " and ", wk.shape(), " for head_dim ", shape.head_dim);
  const Kernels& k = kernels(qkv.device());
  const bool norm = bool(wq);
  const Tensor q_weight = norm ? wq.value() : Tensor{}, k_weight = norm ? wk.value() : Tensor{};

  Tensor y = empty_like(qkv.value());
  Tensor rstd;
  if (norm) rstd = Tensor::empty({shape.tokens(), shape.n_heads + shape.n_kv_heads}, DType::f32, qkv.device());
  k.qk_norm_rope(y, rstd, qkv.value(), q_weight, k_weight, eps, shape, rope);

  return record(
      "qk_norm_rope", y, {qkv, wq, wk},
      [&k, x = norm ? qkv.value() : Tensor{}, q_weight, k_weight, rstd, shape, rope](const Tensor& dy) -> Grads {
        Tensor dx = empty_like(dy), dwq, dwk;
        if (q_weight) {
          dwq = Tensor::empty(q_weight.shape(), DType::f32, dy.device(), Memory::gradients);
          dwk = Tensor::empty(k_weight.shape(), DType::f32, dy.device(), Memory::gradients);
        }
        k.qk_norm_rope_backward(dx, dwq, dwk, dy, x, q_weight, k_weight, rstd, shape, rope);
        return {dx, dwq, dwk};
      });
}

}  // namespace switchyard
