#pragma once

#include "train/event_file.h"
#include "train/metrics.h"

namespace switchyard {

// What one step's metrics are in TensorBoard: their scalars under "train/", a held-out loss under "valid/".
EventSummary to_summary(const StepMetrics& metrics);

}  // namespace switchyard
