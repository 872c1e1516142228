#include "moe/gate.h"

#include <cmath>

namespace switchyard {

Gate::Gate(const MoeConfig& config, std::int64_t d_model, const std::string& name, ParameterMaker& make)
    : config_(config.router), name_(name), seed_(make.seed()) {
  const double std = std::sqrt(config_.init_scale / static_cast<double>(d_model));
  const Shape shape{config.experts, d_model};
  weight_ = make.matrix(name + ".gate.weight", shape, {.std = std, .limit = 2}, Decay::no);
  if (config_.noise) noise_weight_ = make.matrix(name + ".gate.noise_weight", shape, {.std = 0}, Decay::no);
}

Scores score(const Variable& logits_TE, Scoring scoring) {
  Scores scores;
  scores.logits_TE = logits_TE;
  if (scoring == Scoring::sigmoid) {
    const Sigmoid sigmoids = sigmoid(logits_TE);
    scores.gate_TE = sigmoids.s_TE;
    scores.share_TE = sigmoids.share_TE;
  } else {
    const Softmax p = softmax(logits_TE);
    scores.gate_TE = scores.share_TE = p.p_TE;
    scores.lse_T = p.lse_T;
  }
  return scores;
}

Scores Gate::operator()(const Variable& x_TD, const RouterPass& pass) const {
  const auto first = static_cast<std::uint64_t>(pass.first_token);
  Variable in = x_TD;
  if (config_.jitter > 0 && pass.trains())
    in = jitter(x_TD, pass.key(seed_, name_, "jitter"), first * static_cast<std::uint64_t>(x_TD.shape()[1]),
                static_cast<float>(config_.jitter));

  const Variable clean_TE = linear_f32(in, weight_);
  Noisy noisy{clean_TE, {}};
  if (config_.noise && pass.trains()) {
    constexpr float kFloor = 1e-2f;  // tensor2tensor's; the paper has none
    Tensor normal_TE = empty_like(clean_TE.value());
    kernels(x_TD.device())
        .normal(normal_TE, pass.key(seed_, name_, "noise"), first * static_cast<std::uint64_t>(normal_TE.dim(1)));
    noisy = noisy_logits(clean_TE, linear_f32(in, noise_weight_), normal_TE, kFloor);
  }
  Scores scores = score(noisy.logits_TE, config_.scores);
  if (noisy.sigma_TE) {
    scores.clean_TE = clean_TE;
    scores.sigma_TE = noisy.sigma_TE;
  }
  if (pass.observe && before_) {
    NoGrad guard;
    scores.before_TE = linear_f32(in, Variable(before_)).value();
  }
  return scores;
}

void Gate::remember() {
  if (!before_) before_ = empty_like(weight_.value());
  kernels(before_.device()).copy(before_, weight_.value());
}

}  // namespace switchyard
