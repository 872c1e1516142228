#pragma once

#include <exception>
#include <optional>

#include "train/event_file.h"
#include "train/metrics.h"

namespace switchyard {

// What one step's metrics are in TensorBoard: their scalars under "train/", a held-out loss under "valid/", and where
// health was read that of each MoE block under "router/", with the load of each expert as a bar.
EventSummary to_summary(const StepMetrics& metrics);

// The event file of a run. No run ends for its charts: where the file cannot be written a warning says so once, and
// there is none from then on.
class Charts {
 public:
  // As EventFile. The world outlives it.
  Charts(const std::filesystem::path& dir, std::int64_t first_step, const ProcessGroup& world);

  void write(const StepMetrics& metrics);

 private:
  void give_up(const std::exception& error);

  const ProcessGroup& world_;
  std::optional<EventFile> file_;
};

}  // namespace switchyard
