#include "train/sample.h"

#include <algorithm>
#include <cmath>

#include "tensor/philox.h"

namespace switchyard {

std::int32_t pick(std::vector<float> logits, double temperature, std::int64_t top_k, double uniform) {
  const auto likeliest = std::ranges::max_element(logits);
  if (temperature == 0) return static_cast<std::int32_t>(likeliest - logits.begin());
  float least = -INFINITY;
  if (top_k > 0 && top_k < static_cast<std::int64_t>(logits.size())) {
    std::vector<float> sorted = logits;
    std::ranges::nth_element(sorted, sorted.begin() + (top_k - 1), std::greater());
    least = sorted[static_cast<std::size_t>(top_k - 1)];
  }
  const double most = *likeliest;
  std::vector<double> cumulative;
  double sum = 0;
  for (const float logit : logits)
    cumulative.push_back(sum += logit < least ? 0 : std::exp((static_cast<double>(logit) - most) / temperature));
  const auto chosen = std::ranges::upper_bound(cumulative, uniform * sum);
  return static_cast<std::int32_t>(std::min(chosen, cumulative.end() - 1) - cumulative.begin());
}

void sample(const Transformer& model, std::vector<std::int32_t> tokens, const SampleOptions& options,
            const std::function<void(std::int32_t)>& each) {
  SY_CHECK(!tokens.empty(), "sample: the prompt is empty");
  const PhiloxKey key = philox_key(options.seed, "sample");
  for (std::int64_t i = 0; i < options.max_tokens; ++i) {
    const auto seen = std::min<std::size_t>(tokens.size(), static_cast<std::size_t>(options.context));
    const std::span<const std::int32_t> window = std::span<const std::int32_t>(tokens).last(seen);
    const auto seq = static_cast<std::int64_t>(seen);
    const Tensor logits_BV = to_device(model.next_logits(Tensor::of(window, {seq}, Device{}), 1, seq), Device{});
    const std::vector<float> logits(logits_BV.data<float>(), logits_BV.data<float>() + logits_BV.numel());
    const std::int32_t next =
        pick(logits, options.temperature, options.top_k, uniform(philox(key, static_cast<std::uint64_t>(i))[0]));
    if (next == options.stop) return;
    tokens.push_back(next);
    each(next);
  }
}

}  // namespace switchyard
