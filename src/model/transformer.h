#pragma once

#include <optional>
#include <vector>

#include "layers/vocabulary.h"
#include "model/block.h"
#include "model/stages.h"

namespace switchyard {

struct ModelResult {
  // What to go back from: the last stage's loss (1); of other stages the rows that the next one takes in, whose
  // backward goes through the losses of this stage's routers too.
  Variable out;
  Tensor lm_loss_1;                 // f32: this rank's share of the mean cross-entropy, nats a token; 0 in other stages
  std::vector<RoutingStats> stats;  // one a MoE block of the model; of another stage's, zeros
};

// What a model carries from step to step and no gradient changes: whole, and the same on all ranks of its stage.
struct NamedState {
  std::string name;
  Tensor value;  // f32
};

// A decoder-only transformer whose blocks are dense or mixtures of experts. With its defaults it computes what
// Hugging Face's Qwen3MoeForCausalLM does. Of a pipeline's stages each holds its blocks, the first also the embedding,
// the last the final norm and the head; a table that is both is held by both ends.
class Transformer {
 public:
  // Both configurations resolved (model/placement.h). `rows` is the type of activations and products: f32 or bf16.
  // `stages` are the mesh's (model/stages.h); without, all blocks in one. The mesh outlives the model.
  Transformer(const ModelConfig& model, const MoeConfig& moe, DType rows, std::uint64_t seed, Device device, Mesh& mesh,
              const std::vector<Stage>& stages);
  Transformer(const ModelConfig& model, const MoeConfig& moe, DType rows, std::uint64_t seed, Device device, Mesh& mesh)
      : Transformer(model, moe, rows, seed, device, mesh, {{0, model.n_layers}}) {}

  // tokens and targets i32 (batch * seq), in host memory, sequence by sequence, the same on all ranks of the tensor
  // group, over which they divide; target -1 counts nothing. in_RD: what the stage before gave, empty in the first
  // stage.
  ModelResult operator()(const Tensor& token_T, const Tensor& target_T, const Pass& pass,
                         const Variable& in_RD = {}) const;
  // Rows that stages pass on, a rank's part of the pass's tokens.
  Shape stream(const Pass& pass) const { return {pass.batch * pass.seq / tensor_.size(), d_model_}; }
  DType rows() const { return rows_; }
  Device device() const { return device_; }

  // f32 (batch, vocab_size): the logits after the last token of each sequence. Records nothing, drops nothing. Without
  // tensor and pipeline parallelism only.
  Tensor next_logits(const Tensor& token_T, std::int64_t batch, std::int64_t seq) const;

  // The biases of routers that have one.
  std::vector<NamedState> states();
  // After the last pass of a step: routers that balance their load by a bias move it. Every rank calls.
  void end_step();

  // Has every router keep its weights as they are, for the next pass that observes.
  void remember_routers();

  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

 private:
  struct Trunk {
    Residual x;
    Variable loss_1;  // of all routers; empty where there are none
    std::vector<RoutingStats> stats;
  };
  Trunk trunk(const Tensor& token_T, const Variable& in_RD, const Pass& pass) const;

  DType rows_;
  Device device_;
  std::int64_t d_model_;
  ProcessGroup& tensor_;
  std::unique_ptr<ProcessGroup> key_sharers_;
  Vocabulary vocabulary_;
  Parameters parameters_;
  Variable embedding_, head_;    // where this stage has them
  std::vector<Block> blocks_;    // of this stage
  std::optional<RmsNorm> norm_;  // in the last
  std::int64_t experts_;
  std::int64_t first_block_ = 0;
  std::int64_t moe_before_ = 0, moe_after_ = 0;  // MoE blocks of the stages before and after
};

}  // namespace switchyard
