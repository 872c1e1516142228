#include "autograd/ops.h"

namespace switchyard {
namespace {

Tensor or_zeros(const Tensor& gradient, const Tensor& like) {
  return gradient ? gradient : Tensor::zeros(like.shape(), like.dtype(), like.device());
}

}  // namespace

// s_e = 1 / (1 + e^-x_e)        share_e = s_e / sum_j s_j
// dx_e = s_e (1 - s_e) (ds_e + (dshare_e - sum_j share_j dshare_j) / sum_j s_j)
Sigmoid sigmoid(const Variable& logits_TE) {
  const Kernels& k = kernels(logits_TE.device());
  Tensor s = empty_like(logits_TE.value()), share = empty_like(s);
  k.sigmoid(s, share, logits_TE.value());

  auto [s_TE, share_TE] =
      record("sigmoid", s, share, {logits_TE}, [&k, s](const Tensor& ds, const Tensor& dshare) -> Grads {
        Tensor dlogits = empty_like(s);
        k.sigmoid_backward(dlogits, or_zeros(ds, s), or_zeros(dshare, s), s);
        return {dlogits};
      });
  return {s_TE, share_TE};
}

// sigma = softplus(raw) + floor        y = clean + sigma n
// dclean = dy                          draw = (dy n + dsigma) / (1 + e^-raw)
Noisy noisy_logits(const Variable& clean_TE, const Variable& raw_TE, Tensor normal_TE, float floor) {
  SY_CHECK(raw_TE.shape() == clean_TE.shape() && normal_TE.shape() == clean_TE.shape(), "noisy_logits: logits ",
           clean_TE.shape(), ", raw deviations ", raw_TE.shape(), ", normal numbers ", normal_TE.shape());
  const Kernels& k = kernels(clean_TE.device());
  Tensor y = empty_like(clean_TE.value()), sigma = empty_like(y);
  k.noisy_logits(y, sigma, clean_TE.value(), raw_TE.value(), normal_TE, floor);

  auto [logits_TE, sigma_TE] =
      record("noisy_logits", y, sigma, {clean_TE, raw_TE},
             [&k, raw = raw_TE.value(), normal_TE](const Tensor& d, const Tensor& dsigma) -> Grads {
               const Tensor dy = or_zeros(d, raw);
               Tensor draw = empty_like(raw);
               k.noisy_logits_backward(draw, dy, or_zeros(dsigma, raw), raw, normal_TE);
               return {dy, draw};
             });
  return {logits_TE, sigma_TE};
}

// p_e = Phi(z), z = (clean_e - limit_e) / sigma_e, limit_e the K-th largest of the others' noisy logits
// dclean_e = phi(z) dp_e / sigma_e        dsigma_e = -z dclean_e        dlimit_e = -dclean_e
Variable choice_probability(const Variable& clean_TE, const Variable& sigma_TE, const TopK& best) {
  SY_CHECK(best.weight_TK.shape()[1] > 1 && sigma_TE.shape() == clean_TE.shape(), "choice_probability: logits ",
           clean_TE.shape(), ", deviations ", sigma_TE.shape(), ", best ", best.weight_TK.shape());
  const Kernels& k = kernels(clean_TE.device());
  Tensor p = empty_like(clean_TE.value());
  k.choice_probability(p, clean_TE.value(), sigma_TE.value(), best.weight_TK.value(), best.expert_TK);

  return record("choice_probability", p, {clean_TE, sigma_TE, best.weight_TK},
                [&k, clean = clean_TE.value(), sigma = sigma_TE.value(), limit = best.weight_TK.value(),
                 expert = best.expert_TK](const Tensor& dp) -> Grads {
                  Tensor dclean = empty_like(clean), dsigma = empty_like(sigma), dlimit = empty_like(limit);
                  k.choice_probability_backward(dclean, dsigma, dlimit, dp, clean, sigma, limit, expert);
                  return {dclean, dsigma, dlimit};
                });
}

// y = u x        dx = u dy        u is drawn again: nothing is kept
Variable jitter(const Variable& x, PhiloxKey key, std::uint64_t first, float eps) {
  const Kernels& k = kernels(x.device());
  const auto jittered = [&k, key, first, eps](const Tensor& x) {
    const Tensor in = cast(x, DType::f32);
    Tensor y = empty_like(in);
    k.jitter(y, in, key, first, eps);
    return y;
  };
  return record("jitter", jittered(x.value()), {x},
                [jittered, dtype = x.dtype()](const Tensor& dy) -> Grads { return {cast(jittered(dy), dtype)}; });
}

}  // namespace switchyard
