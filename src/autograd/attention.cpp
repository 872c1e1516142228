#include "autograd/ops.h"

namespace switchyard {

// s_ij = q_i k_j / sqrt(head_dim) + b[bucket(i - j)] for j <= i        p_i = softmax s_i        y_i = sum_j p_ij v_j
// Keeps the rows, y and the log-sum-exp of each query; backward makes p again from them (Dao et al., FlashAttention,
// arXiv 2205.14135, section 3.1 and appendix B). db[n] is the sum of ds_ij over the pairs at distances of bucket n.
Variable attention(const Variable& qkv, AttentionShape shape, const Variable& bias_HB, RelativeBuckets buckets) {
  SY_CHECK(qkv.shape() == (Shape{shape.tokens(), shape.width()}), "attention: rows ", qkv.shape(), ", wanted (",
           shape.tokens(), ", ", shape.width(), ")");
  SY_CHECK(shape.n_kv_heads > 0 && shape.n_heads % shape.n_kv_heads == 0, "attention: ", shape.n_heads,
           " query heads do not share ", shape.n_kv_heads, " key and value heads evenly");
  SY_CHECK(!bias_HB || bias_HB.shape() == (Shape{shape.n_heads, buckets.count}), "attention: a bias ", bias_HB.shape(),
           ", wanted (", shape.n_heads, ", ", buckets.count, ")");
  SY_CHECK(!bias_HB || (buckets.count % 2 == 0 && buckets.max_distance > buckets.count / 2),
           "attention: ", buckets.count, " buckets up to distance ", buckets.max_distance);
  const Kernels& k = kernels(qkv.device());
  const Tensor bias = bias_HB ? bias_HB.value() : Tensor{};

  Tensor y = Tensor::empty({shape.tokens(), shape.n_heads * shape.head_dim}, qkv.dtype(), qkv.device());
  Tensor lse_BHT = Tensor::empty({shape.batch, shape.n_heads, shape.seq}, DType::f32, qkv.device());
  k.attention(y, lse_BHT, qkv.value(), bias, shape, buckets);

  return record("attention", y, {qkv, bias_HB},
                [&k, qkv = qkv.value(), bias, y, lse_BHT, shape, buckets](const Tensor& dy) -> Grads {
                  Tensor dqkv = empty_like(qkv), dbias;
                  if (bias) dbias = Tensor::empty(bias.shape(), DType::f32, dy.device(), Memory::gradients);
                  k.attention_backward(dqkv, dbias, dy, qkv, bias, y, lse_BHT, shape, buckets);
                  return {dqkv, dbias};
                });
}

}  // namespace switchyard
