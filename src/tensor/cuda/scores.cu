#include "tensor/cuda/kernels.h"
#include "tensor/cuda/tokens.cuh"

namespace switchyard::cuda {
namespace {

__device__ float sigmoid_of(float x) { return 1 / (1 + expf(-x)); }

__global__ void sigmoid_kernel(float* s_TE, float* share_TE, const float* logits_TE, std::int64_t tokens, int experts,
                               int width) {
  for_each_token(tokens, experts, width, [=](std::int64_t t, int lane, int n) {
    float* const s = s_TE + t * experts;
    float sum = 0;
    for (int e = lane; e < n; e += width) sum += s[e] = sigmoid_of(logits_TE[t * experts + e]);
    sum = lanes_sum(sum, width);
    for (int e = lane; e < n; e += width) share_TE[t * experts + e] = s[e] / sum;
  });
}

__global__ void sigmoid_backward_kernel(float* dlogits_TE, const float* ds_TE, const float* dshare_TE,
                                        const float* s_TE, std::int64_t tokens, int experts, int width) {
  for_each_token(tokens, experts, width, [=](std::int64_t t, int lane, int n) {
    const float *const s = s_TE + t * experts, *const ds = ds_TE + t * experts, *const dshare = dshare_TE + t * experts;
    float sum = 0, mean = 0;
    for (int e = lane; e < n; e += width) {
      sum += s[e];
      mean += s[e] * dshare[e];
    }
    sum = lanes_sum(sum, width);
    mean = lanes_sum(mean, width) / sum;
    for (int e = lane; e < n; e += width)
      dlogits_TE[t * experts + e] = s[e] * (1 - s[e]) * (ds[e] + (dshare[e] - mean) / sum);
  });
}

__global__ void noisy_logits_kernel(float* noisy, float* sigma, const float* clean, const float* raw,
                                    const float* normal, std::int64_t count, float floor) {
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += stride) {
    sigma[i] = fmaxf(raw[i], 0) + log1pf(expf(-fabsf(raw[i]))) + floor;
    noisy[i] = clean[i] + sigma[i] * normal[i];
  }
}

__global__ void noisy_logits_backward_kernel(float* draw, const float* dnoisy, const float* dsigma, const float* raw,
                                             const float* normal, std::int64_t count) {
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += stride)
    draw[i] = (dnoisy[i] * normal[i] + dsigma[i]) * sigmoid_of(raw[i]);
}

// Whether expert e is among a token's K best: then the next best after these is its rival, else the last of them.
__device__ bool is_best(const int* best_expert, int top_k, int e) {
  for (int k = 0; k < top_k; ++k)
    if (best_expert[k] == e) return true;
  return false;
}

__global__ void choice_probability_kernel(float* p_TE, const float* clean_TE, const float* sigma_TE, const float* best,
                                          const int* best_expert, std::int64_t count, int experts, int top_k) {
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += stride) {
    const std::int64_t row = i / experts * (top_k + 1);
    const float limit = best[row + (is_best(best_expert + row, top_k, int(i % experts)) ? top_k : top_k - 1)];
    p_TE[i] = 0.5f * erfcf((clean_TE[i] - limit) / sigma_TE[i] * -0.70710678f);
  }
}

__global__ void choice_probability_backward_kernel(float* dclean_TE, float* dsigma_TE, float* dbest, const float* dp_TE,
                                                   const float* clean_TE, const float* sigma_TE, const float* best,
                                                   const int* best_expert, std::int64_t tokens, int experts, int top_k,
                                                   int width) {
  for_each_token(tokens, experts, width, [=](std::int64_t t, int lane, int n) {
    const std::int64_t row = t * (top_k + 1);
    float of_last = 0, of_next = 0;
    for (int e = lane; e < n; e += width) {
      const std::int64_t i = t * experts + e;
      const bool chosen = is_best(best_expert + row, top_k, e);
      const float z = (clean_TE[i] - best[row + (chosen ? top_k : top_k - 1)]) / sigma_TE[i];
      const float d = dp_TE[i] * (0.39894228f * expf(z * z / -2)) / sigma_TE[i];
      dclean_TE[i] = d;
      dsigma_TE[i] = -d * z;
      (chosen ? of_next : of_last) -= d;
    }
    of_last = lanes_sum(of_last, width);
    of_next = lanes_sum(of_next, width);
    if (n > 0)
      for (int k = lane; k <= top_k; k += width) dbest[row + k] = k == top_k ? of_next : k == top_k - 1 ? of_last : 0;
  });
}

// The sum of what the threads of a block bring, in their order.
__device__ double sum_in_order(double x, Shared<double> parts) {
  __syncthreads();
  parts[int(threadIdx.x)] = x;
  __syncthreads();
  double sum = 0;
  for (int i = 0; i < kThreads; ++i) sum += parts[i];
  return sum;
}

// One block goes from group to group: there are few, and an expert is a number.
__global__ void squared_variation_kernel(float* loss_1, float* dsum_GE, const float* sum_GE, std::int64_t groups,
                                         int experts, float scale) {
  SharedMemory shared;
  const auto parts = shared.take<double>(kThreads);
  double loss = 0;
  for (std::int64_t g = 0; g < groups; ++g) {
    const float* const s = sum_GE + g * experts;
    double mean = 0, variance = 0;
    for (int e = int(threadIdx.x); e < experts; e += kThreads) mean += s[e];
    mean = sum_in_order(mean, parts) / experts;
    for (int e = int(threadIdx.x); e < experts; e += kThreads) variance += (s[e] - mean) * (s[e] - mean);
    variance = sum_in_order(variance, parts) / experts;
    const double q = mean * mean + 1e-10;
    loss += variance / q;
    for (int e = int(threadIdx.x); e < experts; e += kThreads)
      dsum_GE[g * experts + e] =
          float(scale * (2 * (s[e] - mean) / (experts * q) - 2 * variance * mean / (experts * q * q)));
  }
  if (threadIdx.x == 0) *loss_1 = float(scale * loss);
}

}  // namespace

void sigmoid(Tensor& s_TE, Tensor& share_TE, const Tensor& logits_TE) {
  Context& on = context(s_TE.device());
  const std::int64_t tokens = s_TE.dim(0), experts = s_TE.dim(1);
  const int width = lanes_for(experts);
  launch(on, "sigmoid", sigmoid_kernel, grid_for_tokens(on, tokens, width), kThreads, 0, ptr<float>(s_TE),
         ptr<float>(share_TE), ptr<float>(logits_TE), tokens, experts, width);
}

void sigmoid_backward(Tensor& dlogits_TE, const Tensor& ds_TE, const Tensor& dshare_TE, const Tensor& s_TE) {
  Context& on = context(s_TE.device());
  const std::int64_t tokens = s_TE.dim(0), experts = s_TE.dim(1);
  const int width = lanes_for(experts);
  launch(on, "sigmoid_backward", sigmoid_backward_kernel, grid_for_tokens(on, tokens, width), kThreads, 0,
         ptr<float>(dlogits_TE), ptr<float>(ds_TE), ptr<float>(dshare_TE), ptr<float>(s_TE), tokens, experts, width);
}

void noisy_logits(Tensor& noisy_TE, Tensor& sigma_TE, const Tensor& clean_TE, const Tensor& raw_TE,
                  const Tensor& normal_TE, float floor) {
  Context& on = context(noisy_TE.device());
  launch(on, "noisy_logits", noisy_logits_kernel, grid_for(on, noisy_TE.numel(), kThreads), kThreads, 0,
         ptr<float>(noisy_TE), ptr<float>(sigma_TE), ptr<float>(clean_TE), ptr<float>(raw_TE), ptr<float>(normal_TE),
         noisy_TE.numel(), floor);
}

void noisy_logits_backward(Tensor& draw_TE, const Tensor& dnoisy_TE, const Tensor& dsigma_TE, const Tensor& raw_TE,
                           const Tensor& normal_TE) {
  Context& on = context(draw_TE.device());
  launch(on, "noisy_logits_backward", noisy_logits_backward_kernel, grid_for(on, draw_TE.numel(), kThreads), kThreads,
         0, ptr<float>(draw_TE), ptr<float>(dnoisy_TE), ptr<float>(dsigma_TE), ptr<float>(raw_TE),
         ptr<float>(normal_TE), draw_TE.numel());
}

void choice_probability(Tensor& p_TE, const Tensor& clean_TE, const Tensor& sigma_TE, const Tensor& best,
                        const Tensor& best_expert) {
  Context& on = context(p_TE.device());
  launch(on, "choice_probability", choice_probability_kernel, grid_for(on, p_TE.numel(), kThreads), kThreads, 0,
         ptr<float>(p_TE), ptr<float>(clean_TE), ptr<float>(sigma_TE), ptr<float>(best), ptr<std::int32_t>(best_expert),
         p_TE.numel(), p_TE.dim(1), best.dim(1) - 1);
}

void choice_probability_backward(Tensor& dclean_TE, Tensor& dsigma_TE, Tensor& dbest, const Tensor& dp_TE,
                                 const Tensor& clean_TE, const Tensor& sigma_TE, const Tensor& best,
                                 const Tensor& best_expert) {
  Context& on = context(dp_TE.device());
  const std::int64_t tokens = dp_TE.dim(0), experts = dp_TE.dim(1);
  const int width = lanes_for(experts);
  launch(on, "choice_probability_backward", choice_probability_backward_kernel, grid_for_tokens(on, tokens, width),
         kThreads, 0, ptr<float>(dclean_TE), ptr<float>(dsigma_TE), ptr<float>(dbest), ptr<float>(dp_TE),
         ptr<float>(clean_TE), ptr<float>(sigma_TE), ptr<float>(best), ptr<std::int32_t>(best_expert), tokens, experts,
         best.dim(1) - 1, width);
}

void squared_variation(Tensor& loss_1, Tensor& dsum_GE, const Tensor& sum_GE, float scale) {
  Context& on = context(loss_1.device());
  launch(on, "squared_variation", squared_variation_kernel, 1, kThreads, shared_bytes_of<double>(kThreads),
         ptr<float>(loss_1), ptr<float>(dsum_GE), ptr<float>(sum_GE), sum_GE.dim(0), sum_GE.dim(1), scale);
}

}  // namespace switchyard::cuda
