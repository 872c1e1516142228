#include <algorithm>
#include <cmath>

#include "tensor/cpu/block_sum.h"
#include "tensor/cpu/kernels.h"
#include "tensor/cpu/simd.h"

namespace switchyard::cpu {
namespace {

constexpr std::int64_t kSumWords = 1024;  // summed apart, so that small terms do not vanish beside a long sum

// Relative to the largest logit throughout: lse itself would round off what a loss near 0 is made of. The second
// exponential is cheaper than a place to keep the first; the row is still in the cache.
struct Exponentials {
  float max, sum;  // of e^(logit - max)
};

template <class In>
Exponentials exponentials(const In* logits, std::int64_t words) {
  float max = to_float(logits[0]);
#pragma omp simd simdlen(16) reduction(max : max)
  for (std::int64_t v = 0; v < words; ++v) max = to_float(logits[v]) > max ? to_float(logits[v]) : max;
  float sum = 0;
  for (std::int64_t begin = 0; begin < words; begin += kSumWords) {
    const std::int64_t end = std::min(begin + kSumWords, words);
    float part = 0;
#pragma omp simd simdlen(16) reduction(+ : part)
    for (std::int64_t v = begin; v < end; ++v) part += exp_approx(to_float(logits[v]) - max);
    sum += part;
  }
  return {max, sum};
}

// dlogits = scale e^(logit - max) / sum; at the target, whose logit is max + at_target, scale less.
template <class In, class Out>
void gradient_row(Out* dlogits, const In* logits, std::int64_t words, std::int32_t target, Exponentials e,
                  float at_target, float scale) {
  const float factor = scale / e.sum;
#pragma omp simd simdlen(16)
  for (std::int64_t v = 0; v < words; ++v)
    dlogits[v] = from_float<Out>(factor * exp_approx(to_float(logits[v]) - e.max));
  if (target >= 0) dlogits[target] = from_float<Out>(scale * (std::exp(at_target) / e.sum - 1));
}

template <class In, class Out>
float cross_entropy_row(Out* dlogits, const In* logits, std::int64_t words, std::int32_t target, float scale) {
  const Exponentials e = exponentials(logits, words);
  const float at_target = to_float(logits[target]) - e.max;
  if (dlogits) gradient_row(dlogits, logits, words, target, e, at_target, scale);
  return std::log(e.sum) - at_target;
}

template <class In, class Out>
void cross_entropy_rows(float* loss, Out* dlogits, const In* logits, const std::int32_t* target, std::int64_t rows,
                        std::int64_t words, float scale) {
#pragma omp parallel for schedule(static) if (rows * words > kParallelElements)
  for (std::int64_t r = 0; r < rows; ++r) {
    Out* dlogits_V = dlogits ? dlogits + r * words : nullptr;
    if (target[r] >= 0)
      loss[r] = cross_entropy_row(dlogits_V, logits + r * words, words, target[r], scale);
    else {
      loss[r] = 0;
      if (dlogits) std::fill_n(dlogits_V, words, Out(0.0f));
    }
  }
}

}  // namespace

void cross_entropy(Tensor& loss_R, Tensor& dlogits_RV, const Tensor& logits_RV, const Tensor& target_R, float scale) {
  with_row_type(logits_RV.dtype(), [&]<class In>(In) {
    with_row_type(dlogits_RV ? dlogits_RV.dtype() : logits_RV.dtype(), [&]<class Out>(Out) {
      cross_entropy_rows(loss_R.data<float>(), dlogits_RV ? dlogits_RV.data<Out>() : nullptr, logits_RV.data<In>(),
                         target_R.data<std::int32_t>(), logits_RV.dim(0), logits_RV.dim(1), scale);
    });
  });
}

void cross_entropy_part(Tensor& part_R4, const Tensor& logits_RV, const Tensor& target_R) {
  const std::int64_t rows = logits_RV.dim(0), words = logits_RV.dim(1);
  const float* logits = logits_RV.data<float>();
  const std::int32_t* target = target_R.data<std::int32_t>();
  float* parts = part_R4.data<float>();
#pragma omp parallel for schedule(static) if (rows * words > kParallelElements)
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* row = logits + r * words;
    const Exponentials e = exponentials(row, words);
    const bool is_here = target[r] >= 0;
    float* part = parts + r * 4;
    part[0] = e.max;
    part[1] = e.sum;
    part[2] = is_here ? row[target[r]] : 0;
    part[3] = is_here;
  }
}

void cross_entropy_whole(Tensor& loss_R, Tensor& dlogits_RV, const Tensor& logits_RV, const Tensor& target_R,
                         const Tensor& part_PR4, float scale) {
  const std::int64_t rows = logits_RV.dim(0), words = logits_RV.dim(1), ranks = part_PR4.dim(0);
  const float *logits = logits_RV.data<float>(), *parts = part_PR4.data<float>();
  const std::int32_t* target = target_R.data<std::int32_t>();
  float* loss = loss_R.data<float>();
  with_row_type(dlogits_RV ? dlogits_RV.dtype() : DType::f32, [&]<class Out>(Out) {
    Out* dlogits = dlogits_RV ? dlogits_RV.data<Out>() : nullptr;
#pragma omp parallel for schedule(static) if (rows * words > kParallelElements)
    for (std::int64_t r = 0; r < rows; ++r) {
      const auto part = [=](std::int64_t p) { return parts + (p * rows + r) * 4; };
      Exponentials e{part(0)[0], 0};
      for (std::int64_t p = 1; p < ranks; ++p) e.max = std::max(e.max, part(p)[0]);
      float logit = 0, found = 0;
      for (std::int64_t p = 0; p < ranks; ++p) {
        e.sum += part(p)[1] * std::exp(part(p)[0] - e.max);
        if (part(p)[3] > 0) logit = part(p)[2], found = 1;
      }
      loss[r] = found > 0 ? std::log(e.sum) - (logit - e.max) : 0;
      if (!dlogits) continue;
      if (found > 0)
        gradient_row(dlogits + r * words, logits + r * words, words, target[r], e, logit - e.max, scale);
      else
        std::fill_n(dlogits + r * words, words, Out(0.0f));
    }
  });
}

void sum(Tensor& y_1, const Tensor& x, Into into) {
  const float* values = x.data<float>();
  const double total = block_sum(x.numel(), kParallelElements, [values](std::int64_t begin, std::int64_t end) {
    return double_sum(begin, end, [values](std::int64_t i) { return values[i]; });
  });
  float& y = y_1.data<float>()[0];
  y = static_cast<float>(into == Into::accumulate ? y + total : total);
}

}  // namespace switchyard::cpu
