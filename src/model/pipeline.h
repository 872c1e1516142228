#pragma once

#include <functional>

#include "model/transformer.h"

namespace switchyard {

// What one micro-batch gives the model.
struct MicroBatch {
  Tensor token_T, target_T;
  Pass pass;
};

// A model's stages at work, each on a set of ranks of its own: micro-batches go from one to the next, and gradients
// back. What neighbours exchange is one all-to-all of the pair, so that both make the same calls in the same order. A
// pipeline of one stage is a model at work.
class Pipeline {
 public:
  Pipeline(const Transformer& model, Mesh& mesh);  // which outlive this

  // Forward alone. Every stage calls; only the last one's lm_loss_1 is not 0.
  ModelResult forward(const MicroBatch& batch);

  // What the caller does on the way.
  struct Step {
    std::int64_t micro_batches;
    std::function<MicroBatch(std::int64_t)> batch;    // the i-th, asked for once, in order
    std::function<void(const ModelResult&)> forward;  // was done
    std::function<void()> last_backward;              // is next
  };
  // Forward and backward of all micro-batches, one forward one backward (1F1B: Narayanan et al., arXiv 2104.04473,
  // section 2.2, after PipeDream-Flush): stage s of p runs p - 1 - s micro-batches ahead, then a backward follows each
  // forward, so that at most p - s of them hold activations. Of m micro-batches' time (p - 1) / (m + p - 1) is waited
  // where stages are equally fast. Gradients add up in order, whatever the number of stages.
  void step(const Step& step);

 private:
  // A micro-batch whose forward is done and whose backward is not.
  struct Flight {
    Variable in, out;
  };
  Variable received(const Tensor& rows) const;

  const Transformer& model_;
  Mesh& mesh_;
  Tensor one_;  // what the loss's backward starts from
};

}  // namespace switchyard
