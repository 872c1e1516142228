#include "train/progress.h"

#include <spdlog/fmt/fmt.h>

#include <cmath>
#include <cstdio>

namespace switchyard {

std::string duration_text(double seconds) {
  const auto s = static_cast<std::int64_t>(std::llround(std::max(0.0, seconds)));
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return fmt::format("{} min {:02} s", s / 60, s % 60);
  if (s < 86400) return fmt::format("{} h {:02} min", s / 3600, s / 60 % 60);
  return fmt::format("{} d {:02} h", s / 86400, s / 3600 % 24);
}

Progress::Progress(ProgressStyle style, std::int64_t first_step, std::int64_t last_step, std::int64_t log_every)
    : style_(style), first_step_(first_step), last_step_(last_step), log_every_(log_every) {}

Progress::~Progress() {
  if (open_) fmt::print("\n");
}

std::string Progress::line(const StepMetrics& m) const {
  const double spent = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  const double left = spent / static_cast<double>(m.step - first_step_) * static_cast<double>(last_step_ - m.step);
  std::string text = fmt::format("step {}/{}  loss {:.4f}", m.step, last_step_, m.loss);
  if (val_loss_) text += fmt::format("  held-out {:.4f}", *val_loss_);
  text += fmt::format("  {:.0f} tokens/s", m.tokens_per_second);
  if (m.drop_fraction > 0) text += fmt::format("  dropped {:.1f}%", 100 * m.drop_fraction);
  return text + fmt::format("  {} left", duration_text(left));
}

void Progress::show(const StepMetrics& m) {
  if (m.val_loss) val_loss_ = m.val_loss;
  if (style_ == ProgressStyle::none) return;
  if (style_ == ProgressStyle::live) {
    fmt::print("\r{}\x1b[K", line(m));
    open_ = true;
  } else if (m.step % log_every_ == 0 || m.step == last_step_ || m.val_loss) {
    fmt::print("{}\n", line(m));
  }
  std::fflush(stdout);
}

void Progress::say(const std::string& line) {
  if (style_ == ProgressStyle::none) return;
  if (open_) fmt::print("\r\x1b[K");
  open_ = false;
  fmt::print("{}\n", line);
  std::fflush(stdout);
}

}  // namespace switchyard
