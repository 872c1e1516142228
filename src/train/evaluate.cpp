#include "train/evaluate.h"

#include <algorithm>

namespace switchyard {

Evaluation evaluate(Pipeline& model, const EvalLoader& data, std::int64_t chunk, std::int64_t seq_len,
                    const Mesh& mesh) {
  NoGrad guard;
  ProcessGroup& data_ranks = *mesh.data;
  const std::int64_t end = data.samples();
  double loss = 0;
  std::int64_t targets = 0;
  for (std::int64_t begin = 0; begin < end; begin += chunk * data_ranks.size()) {
    const std::int64_t first = std::min(begin + data_ranks.rank() * chunk, end), count = std::min(chunk, end - first);
    const Batch batch = data.batch(first, count);
    const ModelResult result =
        model.forward({batch.tokens_T,
                       batch.targets_T,
                       {.batch = count, .seq = seq_len, .share = 1, .capacity = Capacity::unlimited}});
    loss += *to_device(result.lm_loss_1, Device{}).data<float>();
    targets += batch.targets;
  }
  const std::vector<float> mine{static_cast<float>(loss)};
  Tensor sum = Tensor::of(std::span<const float>(mine), {1}, Device{});
  mesh.world->all_reduce(sum, Reduce::sum);
  Tensor counts = Tensor::empty({data_ranks.size()}, DType::i64, Device{});
  data_ranks.all_gather(counts, Tensor::of(std::span<const std::int64_t>(&targets, 1), {1}, Device{}));
  targets = 0;
  for (int r = 0; r < data_ranks.size(); ++r) targets += counts.data<std::int64_t>()[r];
  return {.loss = *sum.data<float>() / static_cast<double>(targets), .targets = targets};
}

}  // namespace switchyard
