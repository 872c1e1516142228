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
template <class In, class Out>
float cross_entropy_row(Out* dlogits, const In* logits, std::int64_t words, std::int32_t target, float scale) {
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
  const float at_target = to_float(logits[target]) - max;
  if (dlogits) {
    const float factor = scale / sum;
#pragma omp simd simdlen(16)
    for (std::int64_t v = 0; v < words; ++v)
      dlogits[v] = from_float<Out>(factor * exp_approx(to_float(logits[v]) - max));
    dlogits[target] = from_float<Out>(scale * (std::exp(at_target) / sum - 1));
  }
  return std::log(sum) - at_target;
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

void sum(Tensor& y_1, const Tensor& x, Into into) {
  const float* values = x.data<float>();
  const double total = block_sum(x.numel(), kParallelElements, [values](std::int64_t begin, std::int64_t end) {
    return double_sum(begin, end, [values](std::int64_t i) { return values[i]; });
  });
  float& y = y_1.data<float>()[0];
  y = static_cast<float>(into == Into::accumulate ? y + total : total);
}

}  // namespace switchyard::cpu
