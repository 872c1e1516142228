#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "tensor/cpu/block_sum.h"
#include "tensor/cpu/kernels.h"
#include "tensor/cpu/simd.h"

namespace switchyard::cpu {
namespace {

constexpr std::int64_t kSumElements = 1 << 12;  // that one block of a sum takes, in whole rows
constexpr std::int64_t kChunkTokens = 512;      // at least, that one thread places

std::int64_t rows_of_block(std::int64_t width) { return std::max<std::int64_t>(1, kSumElements / width); }

// Tokens [begin, end) of routing group g; the last group may be short where the tokens of a call are one group.
struct Group {
  std::int64_t begin, end;
};
Group group_of(std::int64_t g, std::int64_t size, std::int64_t tokens) {
  return {std::min(g * size, tokens), std::min((g + 1) * size, tokens)};
}

}  // namespace

void softmax(Tensor& p_TE, Tensor& lse_T, const Tensor& logits_TE) {
  const std::int64_t tokens = logits_TE.dim(0), experts = logits_TE.dim(1);
  const float* logits = logits_TE.data<float>();
  float *p = p_TE.data<float>(), *lse = lse_T.data<float>();
#pragma omp parallel for schedule(static) if (tokens * experts > kParallelElements)
  for (std::int64_t t = 0; t < tokens; ++t) {
    const float* x = logits + t * experts;
    float* y = p + t * experts;
    float max = x[0];
#pragma omp simd reduction(max : max)
    for (std::int64_t e = 0; e < experts; ++e) max = x[e] > max ? x[e] : max;
#pragma omp simd
    for (std::int64_t e = 0; e < experts; ++e) y[e] = exp_approx(x[e] - max);
    const float sum = sum_over(experts, [y](std::int64_t e) { return y[e]; });
#pragma omp simd
    for (std::int64_t e = 0; e < experts; ++e) y[e] /= sum;
    lse[t] = max + std::log(sum);
  }
}

// dlogit_e = p_e (dp_e - sum_j p_j dp_j)
void softmax_backward(Tensor& dlogits_TE, const Tensor& dp_TE, const Tensor& p_TE) {
  const std::int64_t tokens = p_TE.dim(0), experts = p_TE.dim(1);
  const float *probability = p_TE.data<float>(), *gradient = dp_TE.data<float>();
  float* out = dlogits_TE.data<float>();
#pragma omp parallel for schedule(static) if (tokens * experts > kParallelElements)
  for (std::int64_t t = 0; t < tokens; ++t) {
    const float *p = probability + t * experts, *dp = gradient + t * experts;
    float* dx = out + t * experts;
    const float mean = sum_over(experts, [p, dp](std::int64_t e) { return p[e] * dp[e]; });
#pragma omp simd
    for (std::int64_t e = 0; e < experts; ++e) dx[e] = p[e] * (dp[e] - mean);
  }
}

void top_k(Tensor& weight_TK, Tensor& expert_TK, const Tensor& p_TE, Renormalise renormalise) {
  const std::int64_t tokens = p_TE.dim(0), experts = p_TE.dim(1), top_k = weight_TK.dim(1);
  const float* probability = p_TE.data<float>();
  float* weight = weight_TK.data<float>();
  std::int32_t* expert = expert_TK.data<std::int32_t>();
#pragma omp parallel for schedule(static) if (tokens * experts > kParallelElements)
  for (std::int64_t t = 0; t < tokens; ++t) {
    const float* p = probability + t * experts;
    float* w = weight + t * top_k;
    std::int32_t* chosen = expert + t * top_k;
    // Insertion keeps the best so far in order. Only a strictly larger value passes another, so that the lower index
    // stays first, and K different experts come out even of NaN.
    for (std::int64_t e = 0; e < experts; ++e) {
      if (e >= top_k && !(p[e] > w[top_k - 1])) continue;
      std::int64_t k = std::min(e, top_k - 1);
      for (; k > 0 && p[e] > w[k - 1]; --k) {
        w[k] = w[k - 1];
        chosen[k] = chosen[k - 1];
      }
      w[k] = p[e];
      chosen[k] = static_cast<std::int32_t>(e);
    }
    if (renormalise == Renormalise::yes) {
      float sum = 0;
      for (std::int64_t k = 0; k < top_k; ++k) sum += w[k];
      for (std::int64_t k = 0; k < top_k; ++k) w[k] /= sum;
    }
  }
}

// With s the sum of the chosen p and w_k = p_k / s: dp_k = (dw_k - sum_j w_j dw_j) / s. Else dp_k = dw_k.
void top_k_backward(Tensor& dp_TE, const Tensor& dweight_TK, const Tensor& weight_TK, const Tensor& expert_TK,
                    const Tensor& p_TE, Renormalise renormalise) {
  const std::int64_t tokens = p_TE.dim(0), experts = p_TE.dim(1), top_k = weight_TK.dim(1);
  const float *probability = p_TE.data<float>(), *weight = weight_TK.data<float>();
  const float* gradient = dweight_TK.data<float>();
  const std::int32_t* expert = expert_TK.data<std::int32_t>();
  float* out = dp_TE.data<float>();
#pragma omp parallel for schedule(static) if (tokens * experts > kParallelElements)
  for (std::int64_t t = 0; t < tokens; ++t) {
    const float *p = probability + t * experts, *w = weight + t * top_k, *dw = gradient + t * top_k;
    const std::int32_t* chosen = expert + t * top_k;
    float* dp = out + t * experts;
    float sum = 0, mean = 0;
    for (std::int64_t k = 0; k < top_k; ++k) {
      sum += p[chosen[k]];
      mean += w[k] * dw[k];
    }
    std::fill_n(dp, experts, 0.0f);
    for (std::int64_t k = 0; k < top_k; ++k)
      dp[chosen[k]] = renormalise == Renormalise::yes ? (dw[k] - mean) / sum : dw[k];
  }
}

void count_choices(Tensor& chosen_GKE, const Tensor& expert_TK, Placement placement) {
  const std::int64_t groups = chosen_GKE.dim(0), top_k = chosen_GKE.dim(1), experts = placement.experts;
  const std::int32_t* expert = expert_TK.data<std::int32_t>();
  std::int32_t* chosen = chosen_GKE.data<std::int32_t>();
  std::fill_n(chosen, chosen_GKE.numel(), 0);
  for (std::int64_t g = 0; g < groups; ++g) {
    const auto [begin, end] = group_of(g, placement.group, expert_TK.dim(0));
    for (std::int64_t t = begin; t < end; ++t)
      for (std::int64_t k = 0; k < top_k; ++k)
        if (const std::int32_t e = expert[t * top_k + k]; e >= 0) ++chosen[(g * top_k + k) * experts + e];
  }
}

void choice_fractions(Tensor& f_GE, const Tensor& chosen_GKE, std::int64_t counted, float tokens) {
  const std::int64_t groups = chosen_GKE.dim(0), top_k = chosen_GKE.dim(1), experts = chosen_GKE.dim(2);
  const std::int32_t* chosen = chosen_GKE.data<std::int32_t>();
  float* fraction = f_GE.data<float>();
  std::fill_n(fraction, groups * experts, 0.0f);
  for (std::int64_t g = 0; g < groups; ++g)
    for (std::int64_t k = 0; k < counted; ++k)
      for (std::int64_t e = 0; e < experts; ++e)
        fraction[g * experts + e] += static_cast<float>(chosen[(g * top_k + k) * experts + e]) / tokens;
}

void admit(Tensor& slot_TK, const Tensor& expert_TK, Placement placement) {
  const std::int64_t tokens = expert_TK.dim(0), top_k = expert_TK.dim(1), group = placement.group;
  const std::int32_t* expert = expert_TK.data<std::int32_t>();
  std::int32_t* slot = slot_TK.data<std::int32_t>();
#pragma omp parallel if (tokens * top_k > kParallelElements)
  {
    std::vector<std::int64_t> rows_E(static_cast<std::size_t>(placement.experts));
#pragma omp for schedule(static)
    for (std::int64_t g = 0; g < tokens / group; ++g) {
      std::ranges::fill(rows_E, 0);
      for (std::int64_t k = 0; k < top_k; ++k)
        for (std::int64_t t = g * group; t < (g + 1) * group; ++t) {
          const std::int32_t e = expert[t * top_k + k];
          slot[t * top_k + k] = e >= 0 && rows_E[static_cast<std::size_t>(e)]++ < placement.capacity ? 0 : -1;
        }
    }
  }
}

// A counting sort in three steps: each chunk of tokens counts what its experts keep, by part, the rows of an expert
// follow one another chunk by chunk, and each chunk hands out its share of them in token order.
void place(Tensor& slot_TK, Tensor& token_N, Tensor& count_PE, const Tensor& expert_TK, Placement placement) {
  const std::int64_t tokens = expert_TK.dim(0), top_k = expert_TK.dim(1), experts = placement.experts;
  const std::int64_t keys = placement.parts * experts, part = tokens / placement.parts;
  const std::int64_t chunk = std::max<std::int64_t>(kChunkTokens, keys), chunks = (tokens + chunk - 1) / chunk;
  const auto owned = static_cast<std::int32_t>(placement.owned(tokens));
  const std::int32_t* expert = expert_TK.data<std::int32_t>();
  std::int32_t *slot = slot_TK.data<std::int32_t>(), *token = token_N.data<std::int32_t>();
  std::int32_t* count = count_PE.data<std::int32_t>();

  std::vector<std::int32_t> next_CP(static_cast<std::size_t>(chunks * keys));  // rows kept, then the next row, by key
  // Calls keep(choice, token, next row of its key in this chunk) for all that were kept.
  const auto visit = [&](std::int64_t c, const auto& keep) {
    for (std::int64_t t = c * chunk; t < std::min((c + 1) * chunk, tokens); ++t) {
      std::int32_t* const next_E = next_CP.data() + c * keys + t / part * experts;
      for (std::int64_t choice = t * top_k; choice < (t + 1) * top_k; ++choice)
        if (placement.capacity == 0 || slot[choice] >= 0) keep(choice, t, next_E[expert[choice]]);
    }
  };
#pragma omp parallel for schedule(static) if (tokens * top_k > kParallelElements)
  for (std::int64_t c = 0; c < chunks; ++c) visit(c, [](std::int64_t, std::int64_t, std::int32_t& rows) { ++rows; });

  std::int32_t row = 0;
  for (std::int64_t key = 0; key < keys; ++key) {
    const std::int32_t first = row;
    for (std::int64_t c = 0; c < chunks; ++c)
      row += std::exchange(next_CP[static_cast<std::size_t>(c * keys + key)], row);
    count[key] = row - first;
    if (owned > 0) {
      std::fill(token + row, token + first + owned, -1);
      row = first + owned;
    }
  }
  std::fill(token + row, token + token_N.numel(), -1);

#pragma omp parallel for schedule(static) if (tokens * top_k > kParallelElements)
  for (std::int64_t c = 0; c < chunks; ++c)
    visit(c, [=](std::int64_t choice, std::int64_t t, std::int32_t& next) {
      slot[choice] = next++;
      token[slot[choice]] = static_cast<std::int32_t>(t);
    });
}

void balance_loss(Tensor& loss_1, const Tensor& p_TE, const Tensor& f_GE, float scale) {
  const std::int64_t tokens = p_TE.dim(0), experts = p_TE.dim(1), group = tokens / f_GE.dim(0);
  const float *probability = p_TE.data<float>(), *load = f_GE.data<float>();
  const double sum = block_sum(tokens, rows_of_block(experts), [=](std::int64_t begin, std::int64_t end) {
    double sum = 0;
    for (std::int64_t t = begin; t < end; ++t) {
      const float *p = probability + t * experts, *f = load + t / group * experts;
      sum += sum_over(experts, [p, f](std::int64_t e) { return f[e] * p[e]; });
    }
    return sum;
  });
  loss_1.data<float>()[0] = static_cast<float>(scale * sum);
}

void balance_loss_backward(Tensor& dp_TE, const Tensor& dloss_1, const Tensor& f_GE, float scale) {
  const std::int64_t tokens = dp_TE.dim(0), experts = dp_TE.dim(1), group = tokens / f_GE.dim(0);
  const float* load = f_GE.data<float>();
  const float factor = scale * dloss_1.data<float>()[0];
  float* out = dp_TE.data<float>();
#pragma omp parallel for schedule(static) if (tokens * experts > kParallelElements)
  for (std::int64_t t = 0; t < tokens; ++t) {
    const float* f = load + t / group * experts;
    float* dp = out + t * experts;
#pragma omp simd
    for (std::int64_t e = 0; e < experts; ++e) dp[e] = factor * f[e];
  }
}

void z_loss(Tensor& loss_1, const Tensor& lse_T, float scale) {
  const float* lse = lse_T.data<float>();
  const double sum = block_sum(lse_T.numel(), kSumElements, [lse](std::int64_t begin, std::int64_t end) {
    return double_sum(begin, end, [lse](std::int64_t t) { return static_cast<double>(lse[t]) * lse[t]; });
  });
  loss_1.data<float>()[0] = static_cast<float>(scale * sum);
}

// d lse / d logit_e = p_e, hence dlogit_e = 2 scale lse p_e
void z_loss_backward(Tensor& dlogits_TE, const Tensor& dloss_1, const Tensor& lse_T, const Tensor& p_TE, float scale) {
  const std::int64_t tokens = p_TE.dim(0), experts = p_TE.dim(1);
  const float *lse = lse_T.data<float>(), *probability = p_TE.data<float>();
  const float factor = 2 * scale * dloss_1.data<float>()[0];
  float* out = dlogits_TE.data<float>();
#pragma omp parallel for schedule(static) if (tokens * experts > kParallelElements)
  for (std::int64_t t = 0; t < tokens; ++t) {
    const float* p = probability + t * experts;
    float* dx = out + t * experts;
#pragma omp simd
    for (std::int64_t e = 0; e < experts; ++e) dx[e] = factor * lse[t] * p[e];
  }
}

void entropy(Tensor& sum_1, const Tensor& p_TE) {
  const std::int64_t experts = p_TE.dim(1);
  const float* probability = p_TE.data<float>();
  const double sum = block_sum(p_TE.dim(0), rows_of_block(experts), [=](std::int64_t begin, std::int64_t end) {
    double sum = 0;
    for (std::int64_t i = begin * experts; i < end * experts; ++i)
      if (const float p = probability[i]; p != 0) sum -= p * std::log(p);
    return sum;
  });
  sum_1.data<float>()[0] = static_cast<float>(sum);
}

namespace {

// What a block of tokens adds up to.
struct Observed {
  std::vector<double> p_E;
  std::vector<std::int32_t> kept_K;
  double gate = 0, dropped = 0;
  float logit = 0;
  std::int32_t agreed = 0;
};

}  // namespace

// Blocks of tokens in any order, and their sums in that of the tokens.
void observe_routing(RoutingSums& sums, const Tensor& logits_TE, const Tensor& before_TE, const Tensor& p_TE,
                     const Tensor& weight_TK, const Tensor& expert_TK, const Tensor& slot_TK) {
  const std::int64_t tokens = p_TE.dim(0), experts = p_TE.dim(1), top_k = expert_TK.dim(1);
  const float *probability = p_TE.data<float>(), *logit = logits_TE.data<float>(), *weight = weight_TK.data<float>();
  const float* before = before_TE ? before_TE.data<float>() : nullptr;
  const std::int32_t *expert = expert_TK.data<std::int32_t>(), *slot = slot_TK.data<std::int32_t>();
  const Observed none{std::vector<double>(static_cast<std::size_t>(experts)),
                      std::vector<std::int32_t>(static_cast<std::size_t>(top_k))};
  std::vector<Observed> blocks(static_cast<std::size_t>((tokens + kChunkTokens - 1) / kChunkTokens), none);
#pragma omp parallel for schedule(static) if (tokens * experts > kParallelElements)
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    Observed& sum = blocks[b];
    const std::int64_t begin = static_cast<std::int64_t>(b) * kChunkTokens,
                       end = std::min(begin + kChunkTokens, tokens);
    for (std::int64_t t = begin; t < end; ++t) {
      const float *p = probability + t * experts, *x = logit + t * experts;
      for (std::int64_t e = 0; e < experts; ++e) {
        sum.p_E[static_cast<std::size_t>(e)] += p[e];
        if (const float size = std::abs(x[e]); size > sum.logit || std::isnan(size)) sum.logit = size;  // a NaN stays
      }
      if (before != nullptr)
        sum.agreed += std::max_element(x, x + experts) - x ==
                      std::max_element(before + t * experts, before + (t + 1) * experts) - (before + t * experts);
      for (std::int64_t i = t * top_k; i < (t + 1) * top_k; ++i) {
        if (expert[i] < 0) continue;
        sum.gate += weight[i];
        if (slot[i] < 0)
          sum.dropped += weight[i];
        else
          ++sum.kept_K[static_cast<std::size_t>(i - t * top_k)];
      }
    }
  }

  Observed all = none;
  for (const Observed& sum : blocks) {
    std::ranges::transform(all.p_E, sum.p_E, all.p_E.begin(), std::plus());
    std::ranges::transform(all.kept_K, sum.kept_K, all.kept_K.begin(), std::plus());
    all.gate += sum.gate;
    all.dropped += sum.dropped;
    if (sum.logit > all.logit || std::isnan(sum.logit)) all.logit = sum.logit;
    all.agreed += sum.agreed;
  }
  std::ranges::transform(all.p_E, sums.p_E.data<float>(), [](double p) { return static_cast<float>(p); });
  std::ranges::copy(all.kept_K, sums.kept_K.data<std::int32_t>());
  sums.gate_2.data<float>()[0] = static_cast<float>(all.gate);
  sums.gate_2.data<float>()[1] = static_cast<float>(all.dropped);
  sums.logit_1.data<float>()[0] = all.logit;
  sums.agreed_1.data<std::int32_t>()[0] = all.agreed;
}

}  // namespace switchyard::cpu
