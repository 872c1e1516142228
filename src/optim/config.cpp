#include "optim/config.h"

namespace switchyard {

// AdamW's are this program's own. Adafactor's are GLaM's (Du et al., arXiv 2112.06905, section 5): first decay 0,
// second 0.99 with a schedule of 1 - t^-0.8, clipping of updates at 1, lr 0.01 for 10,000 steps, then as the inverse of
// the root. Steps relative to a parameter's scale are those of Shazeer and Stern's algorithm and of lingvo's GShard
// models.
OptimConfig optim_preset(OptimKind kind) {
  if (kind == OptimKind::adamw) return {};
  return {.kind = kind,
          .lr = 0.01,
          .beta1 = 0,
          .beta2 = 0.99,
          .eps = 1e-30,
          .weight_decay = 0,
          .clip = 0,
          .update_clip = 1,
          .scale_floor = 1e-3,
          .schedule = {.kind = ScheduleKind::inverse_sqrt, .warmup_steps = 0, .min_ratio = 0, .hold_steps = 10'000}};
}

}  // namespace switchyard
