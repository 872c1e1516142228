#pragma once

#include <string>

#include "autograd/ops.h"
#include "layers/parameter_maker.h"
#include "moe/config.h"
#include "moe/routing.h"

namespace switchyard {

// What each token thinks of each expert, f32.
struct Scores {
  Variable gate_TE;    // weights are made of these: the softmax or the sigmoids of the logits
  Variable share_TE;   // the same as shares of 1
  Variable logits_TE;  // with what noise there is; of a softmax also
  Tensor lse_T;        //   log-sum-exp
  // Where there is noise: the logits without it, and its deviation.
  Variable clean_TE, sigma_TE;
  // In a pass that observes: the logits without noise by the weights that were remembered, on the same rows.
  Tensor before_TE;
};

// The scores that logits make, without what is known of noise.
Scores score(const Variable& logits_TE, Scoring scoring);

// Scores tokens by a matrix of its own, all in fp32 whatever the rows are (selective precision: Switch,
// arXiv 2101.03961, section 2.4).
class Gate {
 public:
  Gate(const MoeConfig& config, std::int64_t d_model, const std::string& name, ParameterMaker& make);

  // x (T, d_model). Training jitters the rows and adds the noise, by numbers that depend on the seed, the layer, the
  // step and the token's place in the global batch alone.
  Scores operator()(const Variable& x_TD, const RouterPass& pass) const;

  // Keeps the weights as they are, to compare with later.
  void remember();

 private:
  RouterConfig config_;
  std::string name_;
  std::uint64_t seed_;
  Variable weight_, noise_weight_;
  Tensor before_;  // the weights that were remembered; empty until then
};

}  // namespace switchyard
