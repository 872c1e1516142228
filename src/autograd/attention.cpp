#include "autograd/ops.h"

namespace switchyard {

// s_ij = q_i k_j / sqrt(head_dim) for j <= i        p_i = softmax s_i        y_i = sum_j p_ij v_j
// Keeps the rows, y and the log-sum-exp of each query; backward makes p again from them (Dao et al., FlashAttention,
// arXiv 2205.14135, section 3.1 and appendix B).
Variable attention(const Variable& qkv, AttentionShape shape) {
  SY_CHECK(qkv.shape() == (Shape{shape.tokens(), shape.width()}), "attention: rows ", qkv.shape(), ", wanted (",
           shape.tokens(), ", ", shape.width(), ")");
  SY_CHECK(shape.n_kv_heads > 0 && shape.n_heads % shape.n_kv_heads == 0, "attention: ", shape.n_heads,
           " query heads do not share ", shape.n_kv_heads, " key and value heads evenly");
  const Kernels& k = kernels(qkv.device());

  Tensor y = Tensor::empty({shape.tokens(), shape.n_heads * shape.head_dim}, qkv.dtype(), qkv.device());
  Tensor lse_BHT = Tensor::empty({shape.batch, shape.n_heads, shape.seq}, DType::f32, qkv.device());
  k.attention(y, lse_BHT, qkv.value(), shape);

  return record("attention", y, {qkv}, [&k, qkv = qkv.value(), y, lse_BHT, shape](const Tensor& dy) -> Grads {
    Tensor dqkv = empty_like(qkv);
    k.attention_backward(dqkv, dy, qkv, y, lse_BHT, shape);
    return {dqkv};
  });
}

}  // namespace switchyard
