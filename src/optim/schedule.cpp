#include "optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "tensor/error.h"

namespace switchyard {
namespace {

// How far update n is on the way from `begin` to `end`, from 0 to 1; at once where they are the same.
double progress(std::int64_t n, std::int64_t begin, std::int64_t end) {
  if (n >= end) return 1;
  return n <= begin ? 0 : static_cast<double>(n - begin) / static_cast<double>(end - begin);
}

}  // namespace

double learning_rate(const OptimConfig& config, std::int64_t step, std::int64_t total_steps) {
  SY_CHECK(step >= 0, "learning_rate: step ", step);
  const ScheduleConfig& s = config.schedule;
  const std::int64_t n = step + 1, warmup = s.warmup_steps;
  if (n <= warmup) return config.lr * static_cast<double>(n) / static_cast<double>(warmup);

  const std::int64_t decay_end = s.decay_steps > 0 ? warmup + s.decay_steps : total_steps;
  const auto down_by = [&](double x) { return config.lr * (1 - (1 - s.min_ratio) * x); };
  switch (s.kind) {
    case ScheduleKind::constant: return config.lr;
    case ScheduleKind::linear: return down_by(progress(n, warmup, decay_end));
    case ScheduleKind::cosine: return down_by((1 - std::cos(std::numbers::pi * progress(n, warmup, decay_end))) / 2);
    case ScheduleKind::inverse_sqrt: {
      const std::int64_t hold = std::max<std::int64_t>({warmup, s.hold_steps, 1});
      return config.lr *
             std::max(s.min_ratio, std::sqrt(static_cast<double>(hold) / static_cast<double>(std::max(n, hold))));
    }
    case ScheduleKind::wsd: {
      const std::int64_t decay = s.decay_steps > 0 ? s.decay_steps : total_steps / 10;
      return down_by(progress(n, std::max(warmup, total_steps - decay), total_steps));
    }
  }
  SY_CHECK(false, "learning_rate: unknown schedule");
  return 0;
}

}  // namespace switchyard
