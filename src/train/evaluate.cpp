#include "train/evaluate.h"

#include <algorithm>

namespace switchyard {

Evaluation evaluate(const Transformer& model, const EvalLoader& data, std::int64_t chunk, std::int64_t seq_len,
                    Device device, ProcessGroup& group) {
  NoGrad guard;
  const std::int64_t end = data.samples();
  double loss = 0;
  std::int64_t targets = 0;
  for (std::int64_t begin = 0; begin < end; begin += chunk * group.size()) {
    const std::int64_t first = std::min(begin + group.rank() * chunk, end), count = std::min(chunk, end - first);
    const Batch batch = data.batch(first, count);
    const ModelResult result = model(to_device(batch.tokens_T, device), to_device(batch.targets_T, device),
                                     {.batch = count, .seq = seq_len, .share = 1, .capacity = Capacity::unlimited});
    loss += *to_device(result.lm_loss_1, Device{}).data<float>();
    targets += batch.targets;
  }
  const std::vector<float> mine{static_cast<float>(loss)};
  Tensor sum = Tensor::of(std::span<const float>(mine), {1}, Device{});
  Tensor count = Tensor::of(std::span<const std::int64_t>(&targets, 1), {1}, Device{});
  group.all_reduce(sum, Reduce::sum);
  Tensor counts = Tensor::empty({group.size()}, DType::i64, Device{});
  group.all_gather(counts, count);
  targets = 0;
  for (int r = 0; r < group.size(); ++r) targets += counts.data<std::int64_t>()[r];
  return {.loss = *sum.data<float>() / static_cast<double>(targets), .targets = targets};
}

}  // namespace switchyard
