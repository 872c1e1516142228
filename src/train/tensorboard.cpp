#include "train/tensorboard.h"

#include <cmath>

#include "train/messages.h"

namespace switchyard {

EventSummary to_summary(const StepMetrics& m) {
  EventSummary summary;
  summary.scalar("train/loss", m.loss);
  summary.scalar("train/balance_loss", m.balance_loss);
  summary.scalar("train/z_loss", m.z_loss);
  summary.scalar("train/lr", m.lr);
  summary.scalar("train/grad_norm", m.grad_norm);
  summary.scalar("train/tokens_per_second", m.tokens_per_second);
  summary.scalar("train/drop_fraction", m.drop_fraction);
  summary.scalar("train/router_entropy", m.router_entropy);
  if (m.val_loss) summary.scalar("valid/loss", *m.val_loss);
  for (const auto& [layer, health] : m.router) {
    const std::string where = text("/block_", layer);
    for (const Reading& reading : readings())
      if (const double value = health.*reading.value; !std::isnan(value))
        summary.scalar(text("router/", reading.name, where), value);
    for (std::size_t k = 0; k < health.dropped.size(); ++k)
      summary.scalar(text("router/dropped_of_choice_", k + 1, where), health.dropped[k]);
    summary.bars("router/load" + where, health.load);
  }
  return summary;
}

Charts::Charts(const std::filesystem::path& dir, std::int64_t first_step, const ProcessGroup& world) : world_(world) {
  try {
    file_.emplace(dir, first_step);
  } catch (const std::exception& error) {
    give_up(error);
  }
}

void Charts::write(const StepMetrics& metrics) {
  if (!file_) return;
  try {
    file_->write(metrics.step, to_summary(metrics));
  } catch (const std::exception& error) {
    give_up(error);
  }
}

void Charts::give_up(const std::exception& error) {
  warn(world_, text(error.what(), " The run goes on without charts for TensorBoard."));
  file_.reset();
}

}  // namespace switchyard
