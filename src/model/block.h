#pragma once

#include <optional>
#include <variant>

#include "layers/attention.h"
#include "layers/feed_forward.h"
#include "layers/rms_norm.h"
#include "model/config.h"
#include "moe/moe.h"

namespace switchyard {

// What one pass through the model is for.
struct Pass {
  std::int64_t batch = 0, seq = 0;         // sequences of this rank, tokens of each
  float share = 0;                         // 1 / target tokens of the global batch: every loss is a share of a mean
  Capacity capacity = Capacity::enforced;  // unlimited in evaluation and generation
  bool generates = false;                  // sequences are texts so far, of any length
  Recompute recompute = Recompute::none;
  float balance_scale = 1;       // multiplies the coefficients of the routers' balance losses
  bool observe = false;          // for a reading of the routers' health
  bool record = false;           // to hand out what the routers decided about each token
  std::int64_t step = 0;         // counted from 0
  std::int64_t first_token = 0;  // where this rank's first sequence begins in the global batch of the step
};

// The residual stream x + y. What the last sublayer gave, y, is left to the next norm, which adds it on its way; it may
// be empty.
struct Residual {
  Variable x_TD, y_TD;
};

struct BlockResult {
  Residual x;
  Variable loss_1;                    // of the router; empty in a dense block
  std::optional<RoutingStats> stats;  // likewise
};

// One pre-norm transformer block: x += attention(norm(x)); x += ffn(norm(x)), the ffn dense or a mixture of experts.
// Each rank of the tensor group has its part of the rows.
class Block {
 public:
  enum class Kind { dense, moe };
  Block(const ModelConfig& model, const MoeConfig& moe, Kind kind, const std::string& name, Mesh& mesh,
        ProcessGroup& key_sharers, ParameterMaker& make);

  // `own` is the pass as the routers of this rank see it, with its own part of the rows.
  BlockResult operator()(const Residual& x, const Pass& pass, const RouterPass& own) const;

  // The router, where the block has one.
  Router* router();

 private:
  BlockResult forward(const Residual& x, const Pass& pass, const RouterPass& own) const;

  std::string attention_name_, ffn_name_;
  RmsNorm attention_norm_;
  Attention attention_;
  RmsNorm ffn_norm_;
  std::variant<FeedForward, Moe> ffn_;
};

}  // namespace switchyard
