#pragma once

#include <optional>
#include <vector>

#include "layers/vocabulary.h"
#include "model/block.h"

namespace switchyard {

struct ModelResult {
  Variable loss_1;                  // what to go back from
  Tensor lm_loss_1;                 // f32: this rank's share of the mean cross-entropy, nats a token
  Tensor token_loss_T;              // f32: cross-entropy of each token of the batch, 0 where the target is -1
  std::vector<RoutingStats> stats;  // one a MoE block
};

// A decoder-only transformer whose blocks are dense or mixtures of experts. With its defaults it computes what
// Hugging Face's Qwen3MoeForCausalLM does.
class Transformer {
 public:
  // Both configurations resolved (model/placement.h). `rows` is the type of activations and products: f32 or bf16.
  // The mesh outlives the model.
  Transformer(const ModelConfig& model, const MoeConfig& moe, DType rows, std::uint64_t seed, Device device,
              Mesh& mesh);

  // tokens and targets i32 (batch * seq), in host memory, sequence by sequence, the same on all ranks of the tensor
  // group, over which they divide; target -1 counts nothing
  ModelResult operator()(const Tensor& token_T, const Tensor& target_T, const Pass& pass) const;

  // f32 (batch, vocab_size): the logits after the last token of each sequence. Records nothing, drops nothing. Without
  // tensor parallelism only.
  Tensor next_logits(const Tensor& token_T, std::int64_t batch, std::int64_t seq) const;

  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

 private:
  struct Trunk {
    Variable x_TD;
    Variable loss_1;
    std::vector<RoutingStats> stats;
  };
  Trunk trunk(const Tensor& token_T, const Pass& pass) const;

  DType rows_;
  Device device_;
  ProcessGroup& tensor_;
  std::unique_ptr<ProcessGroup> key_sharers_;
  Vocabulary vocabulary_;
  Parameters parameters_;
  Variable embedding_, head_;
  std::vector<Block> blocks_;
  std::optional<RmsNorm> norm_;
};

}  // namespace switchyard
