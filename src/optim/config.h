#pragma once

#include <cstdint>

namespace switchyard {

enum class ScheduleKind { constant, linear, cosine, inverse_sqrt, wsd };

struct ScheduleConfig {
  ScheduleKind kind = ScheduleKind::cosine;
  std::int64_t warmup_steps = 100;
  double min_ratio = 0.1;
  std::int64_t decay_steps = 0;  // 0: to the last step (wsd: a tenth of the run)
  std::int64_t hold_steps = 0;

  template <class V>
  void describe(V& v) {
    v.choice("kind", kind, "shape of the learning rate after warm-up",
             {{"constant", ScheduleKind::constant},
              {"linear", ScheduleKind::linear},
              {"cosine", ScheduleKind::cosine},
              {"inverse_sqrt", ScheduleKind::inverse_sqrt},
              {"wsd", ScheduleKind::wsd}});
    v.field("warmup_steps", warmup_steps, "steps of linear warm-up from 0").between(0, 1'000'000'000);
    v.field("min_ratio", min_ratio, "the last learning rate as a share of the highest").between(0, 1);
    v.field("decay_steps", decay_steps, "steps of the decay; 0 means to the end (wsd: the last tenth)")
        .between(0, 1'000'000'000);
    v.field("hold_steps", hold_steps, "inverse_sqrt: steps from the first, warm-up among them, before it decays")
        .between(0, 1'000'000'000);
  }
};

enum class OptimKind { adamw, adafactor };

// Its kind gives every other key its default (optim_preset).
struct OptimConfig {
  OptimKind kind = OptimKind::adamw;
  double lr = 3e-3;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;
  double clip = 1.0;
  double update_clip = 1.0;
  double scale_floor = 1e-3;
  ScheduleConfig schedule{};

  template <class V>
  void describe(V& v) {
    v.choice("kind", kind, "what turns gradients into steps: the defaults of all other keys (docs/optimizers.md)",
             {{"adamw", OptimKind::adamw}, {"adafactor", OptimKind::adafactor}});
    v.field("lr", lr, "highest learning rate").between(0, 100);
    v.field("beta1", beta1, "decay of the first moment, which Adafactor keeps only where this is above 0")
        .between(0, 0.9999999);
    v.field("beta2", beta2, "decay of the second moment; Adafactor's is 1 - step^-0.8, at most this")
        .between(0, 0.9999999);
    v.field("eps", eps, "AdamW adds it to the root of the second moment, Adafactor to squares of gradients")
        .between(0, 1);
    v.field("weight_decay", weight_decay,
            "decoupled decay of matrices; never of norms, embeddings, routers or relative biases")
        .between(0, 100);
    v.field("clip", clip, "largest global gradient norm; 0 clips nothing").between(0, 1e9);
    v.field("update_clip", update_clip, "Adafactor's largest root mean square of a matrix's update; 0 clips nothing")
        .between(0, 1e9);
    v.field("scale_floor", scale_floor,
            "Adafactor's steps are lr times a matrix's root mean square, or this if that is less; 0: lr alone")
        .between(0, 1e9);
    v.section("schedule", schedule, "the learning rate over the run");
  }
};

// The optimizer of that kind as published, with its schedule.
OptimConfig optim_preset(OptimKind kind);

// Tensors that it keeps beside each parameter, of its size.
constexpr int moments_each(const OptimConfig& config) {
  return config.kind == OptimKind::adamw ? 2 : config.beta1 > 0 ? 1 : 0;
}

}  // namespace switchyard
