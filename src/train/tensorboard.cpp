#include "train/tensorboard.h"

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
  return summary;
}

}  // namespace switchyard
