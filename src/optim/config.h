#pragma once

#include <cstdint>

namespace switchyard {

enum class ScheduleKind { constant, linear, cosine, inverse_sqrt, wsd };

struct ScheduleConfig {
  ScheduleKind kind = ScheduleKind::cosine;
  std::int64_t warmup_steps = 100;
  double min_ratio = 0.1;
  std::int64_t decay_steps = 0;  // 0: to the last step (wsd: a tenth of the run)

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
  }
};

struct OptimConfig {
  double lr = 3e-3;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;
  double clip = 1.0;
  ScheduleConfig schedule{};

  template <class V>
  void describe(V& v) {
    v.field("lr", lr, "highest learning rate").between(0, 100);
    v.field("beta1", beta1, "decay of AdamW's first moment").between(0, 0.9999999);
    v.field("beta2", beta2, "decay of AdamW's second moment").between(0, 0.9999999);
    v.field("eps", eps, "AdamW's epsilon").between(0, 1);
    v.field("weight_decay", weight_decay, "decoupled decay of matrices; never of norms, embeddings or routers")
        .between(0, 100);
    v.field("clip", clip, "largest global gradient norm; 0 clips nothing").between(0, 1e9);
    v.section("schedule", schedule, "the learning rate over the run");
  }
};

}  // namespace switchyard
