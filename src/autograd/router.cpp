#include "autograd/ops.h"

namespace switchyard {
namespace {

void check_scores(const char* op, const Tensor& x_TE) {
  SY_CHECK(x_TE.shape().rank() == 2 && x_TE.dim(1) > 0 && x_TE.dtype() == DType::f32, op,
           ": wanted f32 scores (tokens, experts), got ", x_TE.dtype(), " ", x_TE.shape());
}

}  // namespace

// p_e = e^(x_e - lse)        lse = log sum_e e^x_e        dx_e = p_e (dp_e - sum_j p_j dp_j)
Softmax softmax(const Variable& logits_TE) {
  check_scores("softmax", logits_TE.value());
  const Kernels& k = kernels(logits_TE.device());
  Tensor p = empty_like(logits_TE.value());
  Tensor lse = Tensor::empty({p.dim(0)}, DType::f32, p.device());
  k.softmax(p, lse, logits_TE.value());

  return {record("softmax", p, {logits_TE},
                 [&k, p](const Tensor& dp) -> Grads {
                   Tensor dlogits = empty_like(p);
                   k.softmax_backward(dlogits, dp, p);
                   return {dlogits};
                 }),
          lse};
}

// w_k = p[e_k], or p[e_k] / s with s = sum_j p[e_j]
// dp[e_k] = dw_k, or (dw_k - sum_j w_j dw_j) / s, and 0 for what was not chosen: the choice itself has no gradient
TopK top_k(const Variable& p_TE, std::int64_t k, Renormalise renormalise) {
  check_scores("top_k", p_TE.value());
  SY_CHECK(1 <= k && k <= p_TE.shape()[1], "top_k: wanted ", k, " of ", p_TE.shape()[1], " experts");
  const Kernels& table = kernels(p_TE.device());
  Tensor weight = Tensor::empty({p_TE.shape()[0], k}, DType::f32, p_TE.device());
  Tensor expert = Tensor::empty(weight.shape(), DType::i32, p_TE.device());
  table.top_k(weight, expert, p_TE.value(), renormalise);

  return {record("top_k", weight, {p_TE},
                 [&table, p = p_TE.value(), weight, expert, renormalise](const Tensor& dweight) -> Grads {
                   Tensor dp = empty_like(p);
                   table.top_k_backward(dp, dweight, weight, expert, p, renormalise);
                   return {dp};
                 }),
          expert};
}

// What top_k gives, for any experts.
Variable choose(const Variable& p_TE, Tensor expert_TK, Renormalise renormalise) {
  check_scores("choose", p_TE.value());
  SY_CHECK(expert_TK.dtype() == DType::i32 && expert_TK.dim(0) == p_TE.shape()[0], "choose: experts ",
           expert_TK.shape(), " ", expert_TK.dtype(), " do not fit scores ", p_TE.shape());
  const Kernels& table = kernels(p_TE.device());
  Tensor weight = Tensor::empty(expert_TK.shape(), DType::f32, p_TE.device());
  table.choose(weight, expert_TK, p_TE.value(), renormalise);

  return record("choose", weight, {p_TE},
                [&table, p = p_TE.value(), weight, expert_TK, renormalise](const Tensor& dweight) -> Grads {
                  Tensor dp = empty_like(p);
                  table.top_k_backward(dp, dweight, weight, expert_TK, p, renormalise);
                  return {dp};
                });
}

// y[t, e_k] = w[t, k], else 0        dw[t, k] = dy[t, e_k]
Variable spread_choices(const Variable& weight_TK, Tensor expert_TK, std::int64_t experts) {
  SY_CHECK(expert_TK.shape() == weight_TK.shape(), "spread_choices: experts ", expert_TK.shape(), " of weights ",
           weight_TK.shape());
  const Kernels& k = kernels(weight_TK.device());
  Tensor y = Tensor::empty(weight_TK.shape().with(1, experts), DType::f32, weight_TK.device());
  k.top_k_backward(y, weight_TK.value(), weight_TK.value(), expert_TK, y, Renormalise::no);

  return record("spread_choices", y, {weight_TK}, [&k, expert_TK](const Tensor& dy) -> Grads {
    Tensor dweight = Tensor::empty(expert_TK.shape(), DType::f32, dy.device());
    k.choose(dweight, expert_TK, dy, Renormalise::no);
    return {dweight};
  });
}

// y = scale sum_t sum_e f[g(t), e] p[t, e]        dp[t, e] = scale f[g(t), e] dy
// f counts choices, a step function of p: it has no gradient (Switch, arXiv 2101.03961, section 2.2).
Variable balance_loss(const Variable& p_TE, Tensor f_GE, float scale) {
  check_scores("balance_loss", p_TE.value());
  check_scores("balance_loss", f_GE);
  SY_CHECK(f_GE.dim(1) == p_TE.shape()[1] && f_GE.dim(0) > 0 && p_TE.shape()[0] % f_GE.dim(0) == 0,
           "balance_loss: loads ", f_GE.shape(), " do not fit probabilities ", p_TE.shape());
  const Kernels& k = kernels(p_TE.device());
  Tensor y = Tensor::empty({1}, DType::f32, p_TE.device());
  k.balance_loss(y, p_TE.value(), f_GE, scale);

  return record("balance_loss", y, {p_TE}, [&k, f_GE, scale, shape = p_TE.shape()](const Tensor& dy) -> Grads {
    Tensor dp = Tensor::empty(shape, DType::f32, dy.device());
    k.balance_loss_backward(dp, dy, f_GE, scale);
    return {dp};
  });
}

// y = scale sum_t lse_t^2        dx[t, e] = 2 scale lse_t p[t, e] dy
Variable z_loss(const Variable& logits_TE, const Softmax& softmax, float scale) {
  SY_CHECK(softmax.p_TE.shape() == logits_TE.shape(), "z_loss: the softmax of ", softmax.p_TE.shape(),
           " is not that of logits ", logits_TE.shape());
  const Kernels& k = kernels(logits_TE.device());
  Tensor y = Tensor::empty({1}, DType::f32, logits_TE.device());
  k.z_loss(y, softmax.lse_T, scale);

  return record("z_loss", y, {logits_TE},
                [&k, lse = softmax.lse_T, p = softmax.p_TE.value(), scale](const Tensor& dy) -> Grads {
                  Tensor dlogits = empty_like(p);
                  k.z_loss_backward(dlogits, dy, lse, p, scale);
                  return {dlogits};
                });
}

}  // namespace switchyard
