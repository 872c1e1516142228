#include "tensor/cuda/kernels.h"
#include "tensor/cuda/tokens.cuh"

namespace switchyard::cuda {
namespace {

__global__ void softmax_kernel(float* p_TE, float* lse_T, const float* logits_TE, std::int64_t tokens, int experts,
                               int width) {
  for_each_token(tokens, experts, width, [=](std::int64_t t, int lane, int n) {
    const float* const x = logits_TE + t * experts;
    float* const p = p_TE + t * experts;
    float max = -INFINITY, sum = 0;
    for (int e = lane; e < n; e += width) max = fmaxf(max, x[e]);
    max = lanes_max(max, width);
    for (int e = lane; e < n; e += width) {
      p[e] = expf(x[e] - max);
      sum += p[e];
    }
    sum = lanes_sum(sum, width);
    for (int e = lane; e < n; e += width) p[e] /= sum;
    if (n > 0 && lane == 0) lse_T[t] = max + logf(sum);
  });
}

__global__ void softmax_backward_kernel(float* dlogits_TE, const float* dp_TE, const float* p_TE, std::int64_t tokens,
                                        int experts, int width) {
  for_each_token(tokens, experts, width, [=](std::int64_t t, int lane, int n) {
    const float *const p = p_TE + t * experts, *const dp = dp_TE + t * experts;
    float mean = 0;
    for (int e = lane; e < n; e += width) mean += p[e] * dp[e];
    mean = lanes_sum(mean, width);
    for (int e = lane; e < n; e += width) dlogits_TE[t * experts + e] = p[e] * (dp[e] - mean);
  });
}

// K times the largest below the last one: ranks differ, so nothing need be remembered of those taken.
__global__ void top_k_kernel(float* weight_TK, int* expert_TK, const float* p_TE, std::int64_t tokens, int experts,
                             int choices, int width, bool renormalise) {
  for_each_token(tokens, experts, width, [=](std::int64_t t, int lane, int n) {
    const float* const p = p_TE + t * experts;
    float* const w = weight_TK + t * choices;
    unsigned long long last = ~0ull;
    float sum = 0;
    for (int k = 0; k < choices; ++k) {
      unsigned long long best = 0;
      for (int e = lane; e < n; e += width)
        if (const unsigned long long rank = rank_of(p[e], e); rank < last && rank > best) best = rank;
      last = lanes_max(best, width);
      if (n == 0) continue;
      const float chosen = p[index_of(last)];
      sum += chosen;
      if (k % width != lane) continue;
      w[k] = chosen;
      expert_TK[t * choices + k] = index_of(last);
    }
    if (n > 0 && renormalise)
      for (int k = lane; k < choices; k += width) w[k] /= sum;
  });
}

__global__ void top_k_backward_kernel(float* dp_TE, const float* dweight_TK, const float* weight_TK,
                                      const int* expert_TK, const float* p_TE, std::int64_t tokens, int experts,
                                      int choices, int width, bool renormalise) {
  for_each_token(tokens, experts, width, [=](std::int64_t t, int lane, int n) {
    const float *const p = p_TE + t * experts, *const w = weight_TK + t * choices, *const dw = dweight_TK + t * choices;
    const int* const chosen = expert_TK + t * choices;
    float* const dp = dp_TE + t * experts;
    float sum = 0, mean = 0;
    for (int e = lane; e < n; e += width) dp[e] = 0;
    if (n > 0 && renormalise)
      for (int k = 0; k < choices; ++k) {
        sum += p[chosen[k]];
        mean += w[k] * dw[k];
      }
    __syncwarp();  // the zeros of other lanes come first
    if (n > 0)
      for (int k = lane; k < choices; k += width) dp[chosen[k]] = renormalise ? (dw[k] - mean) / sum : dw[k];
  });
}

__global__ void fractions_kernel(float* f_GE, const int* chosen_GKE, std::int64_t groups, int choices, int experts,
                                 int counted, float tokens) {
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < groups * experts; i += stride) {
    const int* const chosen = chosen_GKE + i / experts * choices * experts + i % experts;
    float sum = 0;
    for (int k = 0; k < counted; ++k) sum += float(chosen[std::int64_t{k} * experts]) / tokens;
    f_GE[i] = sum;
  }
}

// The terms of the losses, summed over tokens t and experts e.
struct BalanceTerm {
  const float *p_TE, *f_GE;
  std::int64_t group;
  int experts;
  __device__ float operator()(std::int64_t t, int e) const {
    return f_GE[t / group * experts + e] * p_TE[t * experts + e];
  }
};
struct ZTerm {
  const float* lse_T;
  __device__ float operator()(std::int64_t t, int) const { return lse_T[t] * lse_T[t]; }
};
struct EntropyTerm {
  const float* p_TE;
  int experts;
  __device__ float operator()(std::int64_t t, int e) const {
    const float p = p_TE[t * experts + e];
    return p == 0 ? 0 : -p * logf(p);
  }
};

// A lane adds its tokens in double, since there may be thousands; the tree over lanes and blocks is f32.
template <class Term>
__global__ void partial_sum_kernel(float* sums, std::int64_t tokens, int experts, int width, Term term) {
  SharedMemory shared;
  const auto parts = shared.take<float>(kWarpSize);
  double sum = 0;
  for_each_token(tokens, experts, width, [&](std::int64_t t, int lane, int n) {
    float of_token = 0;
    for (int e = lane; e < n; e += width) of_token += term(t, e);
    sum += of_token;
  });
  const float of_block = block_sum(float(sum), parts);
  if (threadIdx.x == 0) sums[blockIdx.x] = of_block;
}
__global__ void finish_sum_kernel(float* y_1, const float* sums, int count, float scale) {
  SharedMemory shared;
  const auto parts = shared.take<float>(kWarpSize);
  float sum = 0;
  for (int i = int(threadIdx.x); i < count; i += kThreads) sum += sums[i];
  sum = block_sum(sum, parts);
  if (threadIdx.x == 0) *y_1 = scale * sum;
}

constexpr int kColumns = 32, kColumnRows = kThreads / kColumns;
constexpr std::int64_t kColumnTokens = 2048;  // that one block adds up

// sums[part, e] = sum of p[t, e] over the part's tokens: threads of a block are rows of 32 neighbouring experts.
__global__ void column_sums_kernel(double* sums_PE, const float* p_TE, std::int64_t tokens, int experts) {
  SharedMemory shared;
  const auto rows = shared.take<double>(kThreads);
  const int e = int(blockIdx.y) * kColumns + int(threadIdx.x) % kColumns;
  const std::int64_t begin = blockIdx.x * kColumnTokens, end = min(begin + kColumnTokens, tokens);
  double sum = 0;
  if (e < experts)
    for (std::int64_t t = begin + threadIdx.x / kColumns; t < end; t += kColumnRows) sum += p_TE[t * experts + e];
  rows[int(threadIdx.x)] = sum;
  __syncthreads();
  if (threadIdx.x >= kColumns || e >= experts) return;
  for (int row = 1; row < kColumnRows; ++row) sum += rows[row * kColumns + int(threadIdx.x)];
  sums_PE[std::int64_t{blockIdx.x} * experts + e] = sum;
}
__global__ void add_parts_kernel(float* sum_E, const double* sums_PE, int parts, int experts) {
  const int e = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (e >= experts) return;
  double sum = 0;
  for (int part = 0; part < parts; ++part) sum += sums_PE[std::int64_t{part} * experts + e];
  sum_E[e] = float(sum);
}

struct Choices {
  const float* weight_TK;
  const int *expert_TK, *slot_TK;
  int count;
};

// Integers meet in atomic additions, and the largest |logit|, as bits that order like what they mean (a NaN above all),
// in an atomic maximum: neither depends on who comes first.
__global__ void observe_kernel(int* kept_K, int* logit_bits_1, int* agreed_1, float* gates_B2, const float* logits_TE,
                               const float* before_TE, Choices choices, std::int64_t tokens, int experts, int width) {
  SharedMemory shared;
  const auto parts = shared.take<float>(kWarpSize);
  const auto kept = shared.take<int>(choices.count);
  for (int k = int(threadIdx.x); k < choices.count; k += kThreads) kept[k] = 0;
  __syncthreads();
  double gate = 0, dropped = 0;
  int largest = 0, agreed = 0;
  for_each_token(tokens, experts, width, [&](std::int64_t t, int lane, int n) {
    const float* const x = logits_TE + t * experts;
    unsigned long long best = 0, best_before = 0;
    for (int e = lane; e < n; e += width) {
      largest = max(largest, int(__float_as_uint(fabsf(x[e]))));
      best = max(best, rank_of(x[e], e));
      if (before_TE) best_before = max(best_before, rank_of(before_TE[t * experts + e], e));
    }
    best = lanes_max(best, width);
    best_before = lanes_max(best_before, width);
    if (n == 0) return;
    if (lane == 0 && before_TE && index_of(best) == index_of(best_before)) ++agreed;
    for (int k = lane; k < choices.count; k += width) {
      const std::int64_t i = t * choices.count + k;
      if (choices.expert_TK[i] < 0) continue;
      gate += choices.weight_TK[i];
      if (choices.slot_TK[i] < 0)
        dropped += choices.weight_TK[i];
      else
        atomicAdd(&kept[k], 1);
    }
  });
  largest = lanes_max(largest, kWarpSize);
  agreed = warp_sum(agreed);
  if (lane_id() == 0) {
    atomicMax(logit_bits_1, largest);
    atomicAdd(agreed_1, agreed);
  }
  const float gate_of_block = block_sum(float(gate), parts), dropped_of_block = block_sum(float(dropped), parts);
  for (int k = int(threadIdx.x); k < choices.count; k += kThreads) atomicAdd(&kept_K[k], kept[k]);  // all have added
  if (threadIdx.x > 0) return;
  gates_B2[2 * blockIdx.x] = gate_of_block;
  gates_B2[2 * blockIdx.x + 1] = dropped_of_block;
}
__global__ void finish_gates_kernel(float* gate_2, const float* gates_B2, int blocks) {
  const int i = int(threadIdx.x);
  double sum = 0;
  for (int b = 0; b < blocks; ++b) sum += gates_B2[2 * b + i];
  gate_2[i] = float(sum);
}

template <class Term>
void sum_terms(const char* name, Tensor& y_1, std::int64_t tokens, std::int64_t experts, float scale, Term term) {
  Context& on = context(y_1.device());
  const int width = lanes_for(experts);
  const unsigned blocks = grid_for_tokens(on, tokens, width);
  float* const sums = on.scratch<float>(blocks);
  constexpr std::size_t kShared = shared_bytes_of<float>(kWarpSize);
  launch(on, name, partial_sum_kernel<Term>, blocks, kThreads, kShared, sums, tokens, experts, width, term);
  launch(on, name, finish_sum_kernel, 1, kThreads, kShared, ptr<float>(y_1), sums, blocks, scale);
}

// dx[t, e] = scale * dloss * factor(t, e)
template <class Factor>
__global__ void scaled_kernel(float* dx_TE, const float* dloss_1, float scale, std::int64_t tokens, int experts,
                              int width, Factor factor) {
  const float by = scale * *dloss_1;
  for_each_token(tokens, experts, width, [=](std::int64_t t, int lane, int n) {
    for (int e = lane; e < n; e += width) dx_TE[t * experts + e] = factor(by, t, e);
  });
}
struct BalanceFactor {
  const float* f_GE;
  std::int64_t group;
  int experts;
  __device__ float operator()(float by, std::int64_t t, int e) const { return by * f_GE[t / group * experts + e]; }
};
struct ZFactor {
  const float *lse_T, *p_TE;
  int experts;
  __device__ float operator()(float by, std::int64_t t, int e) const { return by * lse_T[t] * p_TE[t * experts + e]; }
};

template <class Factor>
void scale_terms(const char* name, Tensor& dx_TE, const Tensor& dloss_1, float scale, Factor factor) {
  Context& on = context(dx_TE.device());
  const std::int64_t tokens = dx_TE.dim(0), experts = dx_TE.dim(1);
  const int width = lanes_for(experts);
  launch(on, name, scaled_kernel<Factor>, grid_for_tokens(on, tokens, width), kThreads, 0, ptr<float>(dx_TE),
         ptr<float>(dloss_1), scale, tokens, experts, width, factor);
}

}  // namespace

void softmax(Tensor& p_TE, Tensor& lse_T, const Tensor& logits_TE) {
  Context& on = context(p_TE.device());
  const std::int64_t tokens = p_TE.dim(0), experts = p_TE.dim(1);
  const int width = lanes_for(experts);
  launch(on, "softmax", softmax_kernel, grid_for_tokens(on, tokens, width), kThreads, 0, ptr<float>(p_TE),
         ptr<float>(lse_T), ptr<float>(logits_TE), tokens, experts, width);
}

void softmax_backward(Tensor& dlogits_TE, const Tensor& dp_TE, const Tensor& p_TE) {
  Context& on = context(p_TE.device());
  const std::int64_t tokens = p_TE.dim(0), experts = p_TE.dim(1);
  const int width = lanes_for(experts);
  launch(on, "softmax_backward", softmax_backward_kernel, grid_for_tokens(on, tokens, width), kThreads, 0,
         ptr<float>(dlogits_TE), ptr<float>(dp_TE), ptr<float>(p_TE), tokens, experts, width);
}

void top_k(Tensor& weight_TK, Tensor& expert_TK, const Tensor& p_TE, Renormalise renormalise) {
  Context& on = context(p_TE.device());
  const std::int64_t tokens = p_TE.dim(0), experts = p_TE.dim(1);
  const int width = lanes_for(experts);
  launch(on, "top_k", top_k_kernel, grid_for_tokens(on, tokens, width), kThreads, 0, ptr<float>(weight_TK),
         ptr<std::int32_t>(expert_TK), ptr<float>(p_TE), tokens, experts, weight_TK.dim(1), width,
         renormalise == Renormalise::yes);
}

void top_k_backward(Tensor& dp_TE, const Tensor& dweight_TK, const Tensor& weight_TK, const Tensor& expert_TK,
                    const Tensor& p_TE, Renormalise renormalise) {
  Context& on = context(p_TE.device());
  const std::int64_t tokens = p_TE.dim(0), experts = p_TE.dim(1);
  const int width = lanes_for(experts);
  launch(on, "top_k_backward", top_k_backward_kernel, grid_for_tokens(on, tokens, width), kThreads, 0,
         ptr<float>(dp_TE), ptr<float>(dweight_TK), ptr<float>(weight_TK), ptr<std::int32_t>(expert_TK),
         ptr<float>(p_TE), tokens, experts, weight_TK.dim(1), width, renormalise == Renormalise::yes);
}

void choice_fractions(Tensor& f_GE, const Tensor& chosen_GKE, std::int64_t counted, float tokens) {
  Context& on = context(f_GE.device());
  launch(on, "choice_fractions", fractions_kernel, grid_for(on, f_GE.numel(), kThreads), kThreads, 0, ptr<float>(f_GE),
         ptr<std::int32_t>(chosen_GKE), chosen_GKE.dim(0), chosen_GKE.dim(1), chosen_GKE.dim(2), counted, tokens);
}

void balance_loss(Tensor& loss_1, const Tensor& p_TE, const Tensor& f_GE, float scale) {
  const std::int64_t tokens = p_TE.dim(0), experts = p_TE.dim(1);
  sum_terms("balance_loss", loss_1, tokens, experts, scale,
            BalanceTerm{ptr<float>(p_TE), ptr<float>(f_GE), tokens / f_GE.dim(0), int(experts)});
}

void balance_loss_backward(Tensor& dp_TE, const Tensor& dloss_1, const Tensor& f_GE, float scale) {
  scale_terms("balance_loss_backward", dp_TE, dloss_1, scale,
              BalanceFactor{ptr<float>(f_GE), dp_TE.dim(0) / f_GE.dim(0), int(dp_TE.dim(1))});
}

void z_loss(Tensor& loss_1, const Tensor& lse_T, float scale) {
  sum_terms("z_loss", loss_1, lse_T.numel(), 1, scale, ZTerm{ptr<float>(lse_T)});
}

void z_loss_backward(Tensor& dlogits_TE, const Tensor& dloss_1, const Tensor& lse_T, const Tensor& p_TE, float scale) {
  scale_terms("z_loss_backward", dlogits_TE, dloss_1, 2 * scale,
              ZFactor{ptr<float>(lse_T), ptr<float>(p_TE), int(p_TE.dim(1))});
}

void entropy(Tensor& sum_1, const Tensor& p_TE) {
  sum_terms("entropy", sum_1, p_TE.dim(0), p_TE.dim(1), 1, EntropyTerm{ptr<float>(p_TE), int(p_TE.dim(1))});
}

void observe_routing(RoutingSums& sums, const Tensor& logits_TE, const Tensor& before_TE, const Tensor& p_TE,
                     const Tensor& weight_TK, const Tensor& expert_TK, const Tensor& slot_TK) {
  Context& on = context(p_TE.device());
  const std::int64_t tokens = p_TE.dim(0), experts = p_TE.dim(1);
  const auto parts = unsigned(ceil_div(tokens, kColumnTokens));
  double* const columns = on.scratch<double>(parts * experts);
  launch(on, "column_sums", column_sums_kernel, dim3(parts, unsigned(ceil_div(experts, std::int64_t{kColumns}))),
         kThreads, shared_bytes_of<double>(kThreads), columns, ptr<float>(p_TE), tokens, experts);
  launch(on, "add_parts", add_parts_kernel, unsigned(ceil_div(experts, std::int64_t{kThreads})), kThreads, 0,
         ptr<float>(sums.p_E), columns, parts, experts);

  zero(sums.kept_K);
  zero(sums.logit_1);
  zero(sums.agreed_1);
  const int width = lanes_for(experts);
  const unsigned blocks = grid_for_tokens(on, tokens, width);
  float* const gates = on.scratch<float>(2 * blocks);
  const Choices choices{ptr<float>(weight_TK), ptr<std::int32_t>(expert_TK), ptr<std::int32_t>(slot_TK),
                        int(expert_TK.dim(1))};
  launch(on, "observe_routing", observe_kernel, blocks, kThreads,
         shared_bytes_of<float>(kWarpSize) + shared_bytes_of<int>(choices.count), ptr<std::int32_t>(sums.kept_K),
         reinterpret_cast<int*>(sums.logit_1.bytes()), ptr<std::int32_t>(sums.agreed_1), gates, ptr<float>(logits_TE),
         ptr_or_null<float>(before_TE), choices, tokens, int(experts), width);
  launch(on, "finish_gates", finish_gates_kernel, 1, 2, 0, ptr<float>(sums.gate_2), gates, blocks);
}

}  // namespace switchyard::cuda
