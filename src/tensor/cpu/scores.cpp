#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/simd.h"

namespace switchyard::cpu {
namespace {

// Standard normal distribution and density.
float normal_below(float z) { return 0.5f * std::erfc(z * -std::numbers::sqrt2_v<float> / 2); }
float normal_density(float z) {
  return std::exp(z * z / -2) * (std::numbers::inv_sqrtpi_v<float> / std::numbers::sqrt2_v<float>);
}

// Which of a token's K + 1 best scores expert e must beat: the K-th of the others.
std::int64_t rival(const std::int32_t* best_expert, std::int64_t top_k, std::int64_t e) {
  return std::find(best_expert, best_expert + top_k, static_cast<std::int32_t>(e)) == best_expert + top_k ? top_k - 1
                                                                                                          : top_k;
}

}  // namespace

void sigmoid(Tensor& s_TE, Tensor& share_TE, const Tensor& logits_TE) {
  const std::int64_t tokens = s_TE.dim(0), experts = s_TE.dim(1);
  const float* logits = logits_TE.data<float>();
  float *out = s_TE.data<float>(), *shares = share_TE.data<float>();
#pragma omp parallel for schedule(static) if (tokens * experts > kParallelElements)
  for (std::int64_t t = 0; t < tokens; ++t) {
    const float* x = logits + t * experts;
    float *s = out + t * experts, *share = shares + t * experts;
#pragma omp simd
    for (std::int64_t e = 0; e < experts; ++e) s[e] = sigmoid_approx(x[e]);
    const float sum = sum_over(experts, [s](std::int64_t e) { return s[e]; });
#pragma omp simd
    for (std::int64_t e = 0; e < experts; ++e) share[e] = s[e] / sum;
  }
}

// ds_e gains (dshare_e - sum_j share_j dshare_j) / sum s, and dlogit_e = s_e (1 - s_e) ds_e.
void sigmoid_backward(Tensor& dlogits_TE, const Tensor& ds_TE, const Tensor& dshare_TE, const Tensor& s_TE) {
  const std::int64_t tokens = s_TE.dim(0), experts = s_TE.dim(1);
  const float *out = s_TE.data<float>(), *of_s = ds_TE.data<float>(), *of_share = dshare_TE.data<float>();
  float* dlogits = dlogits_TE.data<float>();
#pragma omp parallel for schedule(static) if (tokens * experts > kParallelElements)
  for (std::int64_t t = 0; t < tokens; ++t) {
    const float *s = out + t * experts, *ds = of_s + t * experts, *dshare = of_share + t * experts;
    float* dx = dlogits + t * experts;
    const float sum = sum_over(experts, [s](std::int64_t e) { return s[e]; });
    const float mean = sum_over(experts, [s, dshare](std::int64_t e) { return s[e] * dshare[e]; }) / sum;
#pragma omp simd
    for (std::int64_t e = 0; e < experts; ++e) dx[e] = s[e] * (1 - s[e]) * (ds[e] + (dshare[e] - mean) / sum);
  }
}

void noisy_logits(Tensor& noisy_TE, Tensor& sigma_TE, const Tensor& clean_TE, const Tensor& raw_TE,
                  const Tensor& normal_TE, float floor) {
  const float *clean = clean_TE.data<float>(), *raw = raw_TE.data<float>(), *n = normal_TE.data<float>();
  float *noisy = noisy_TE.data<float>(), *sigma = sigma_TE.data<float>();
#pragma omp parallel for schedule(static) if (clean_TE.numel() > kParallelElements)
  for (std::int64_t i = 0; i < clean_TE.numel(); ++i) {
    sigma[i] = std::max(raw[i], 0.0f) + std::log1p(std::exp(-std::abs(raw[i]))) + floor;
    noisy[i] = clean[i] + sigma[i] * n[i];
  }
}

// d softplus / d raw is the sigmoid.
void noisy_logits_backward(Tensor& draw_TE, const Tensor& dnoisy_TE, const Tensor& dsigma_TE, const Tensor& raw_TE,
                           const Tensor& normal_TE) {
  const float *dnoisy = dnoisy_TE.data<float>(), *dsigma = dsigma_TE.data<float>();
  const float *raw = raw_TE.data<float>(), *n = normal_TE.data<float>();
  float* draw = draw_TE.data<float>();
#pragma omp parallel for simd schedule(static) if (raw_TE.numel() > kParallelElements)
  for (std::int64_t i = 0; i < raw_TE.numel(); ++i) draw[i] = (dnoisy[i] * n[i] + dsigma[i]) * sigmoid_approx(raw[i]);
}

void choice_probability(Tensor& p_TE, const Tensor& clean_TE, const Tensor& sigma_TE, const Tensor& best,
                        const Tensor& best_expert) {
  const std::int64_t tokens = p_TE.dim(0), experts = p_TE.dim(1), width = best.dim(1);
  const float *clean = clean_TE.data<float>(), *sigma = sigma_TE.data<float>(), *noisy = best.data<float>();
  const std::int32_t* expert = best_expert.data<std::int32_t>();
  float* p = p_TE.data<float>();
#pragma omp parallel for schedule(static) if (tokens * experts > kParallelElements)
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t e = 0; e < experts; ++e) {
      const float limit = noisy[t * width + rival(expert + t * width, width - 1, e)];
      p[t * experts + e] = normal_below((clean[t * experts + e] - limit) / sigma[t * experts + e]);
    }
}

void choice_probability_backward(Tensor& dclean_TE, Tensor& dsigma_TE, Tensor& dbest, const Tensor& dp_TE,
                                 const Tensor& clean_TE, const Tensor& sigma_TE, const Tensor& best,
                                 const Tensor& best_expert) {
  const std::int64_t tokens = dp_TE.dim(0), experts = dp_TE.dim(1), width = best.dim(1);
  const float *clean = clean_TE.data<float>(), *sigma = sigma_TE.data<float>(), *noisy = best.data<float>();
  const float* dp = dp_TE.data<float>();
  const std::int32_t* expert = best_expert.data<std::int32_t>();
  float *dclean = dclean_TE.data<float>(), *dsigma = dsigma_TE.data<float>(), *dnoisy = dbest.data<float>();
  std::fill_n(dnoisy, dbest.numel(), 0.0f);
#pragma omp parallel for schedule(static) if (tokens * experts > kParallelElements)
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t e = 0; e < experts; ++e) {
      const std::int64_t i = t * experts + e, limit = t * width + rival(expert + t * width, width - 1, e);
      const float z = (clean[i] - noisy[limit]) / sigma[i], d = dp[i] * normal_density(z) / sigma[i];
      dclean[i] = d;
      dsigma[i] = -d * z;
      dnoisy[limit] -= d;
    }
}

// With m the mean, v the variance and q = m^2 + 1e-10: d(v / q) / ds_e = 2 (s_e - m) / (E q) - 2 v m / (E q^2).
void squared_variation(Tensor& loss_1, Tensor& dsum_GE, const Tensor& sum_GE, float scale) {
  const std::int64_t groups = sum_GE.dim(0), experts = sum_GE.dim(1);
  const auto E = static_cast<double>(experts);
  double loss = 0;
  for (std::int64_t g = 0; g < groups; ++g) {
    const float* s = sum_GE.data<float>() + g * experts;
    float* ds = dsum_GE.data<float>() + g * experts;
    double mean = 0, variance = 0;
    for (std::int64_t e = 0; e < experts; ++e) mean += s[e] / E;
    for (std::int64_t e = 0; e < experts; ++e) variance += (s[e] - mean) * (s[e] - mean) / E;
    const double q = mean * mean + 1e-10;
    loss += variance / q;
    for (std::int64_t e = 0; e < experts; ++e)
      ds[e] = static_cast<float>(scale * (2 * (s[e] - mean) / (E * q) - 2 * variance * mean / (E * q * q)));
  }
  loss_1.data<float>()[0] = static_cast<float>(scale * loss);
}

}  // namespace switchyard::cpu
