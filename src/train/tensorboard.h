#pragma once

#include "train/event_file.h"
#include "train/metrics.h"

namespace switchyard {

// What one step's metrics are in TensorBoard: their scalars under "train/", a held-out loss under "valid/", and where
// health was read that of each MoE block under "router/", with the load of each expert as a bar.
EventSummary to_summary(const StepMetrics& metrics);

}  // namespace switchyard
