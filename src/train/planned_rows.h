#pragma once

#include "tensor/device.h"
#include "train/config.h"

namespace switchyard {

// What a plan cannot read from the configuration.
struct Assumptions {
  DeviceType device = DeviceType::cpu;
  // Rows of the busiest rank's experts over those of an average rank, where dispatch is exact; no more than capacity
  // allows, or than there are rows.
  double imbalance = 1;
};

// Rows of one micro-batch on a rank.
struct PlannedRows {
  std::int64_t own = 0, all = 0;        // tokens of this rank, and of its tensor group
  std::int64_t sent = 0, received = 0;  // of an MoE block: that this rank's tokens bring, and that its experts get
  std::int64_t padded = 0;              // of `sent`, those of each expert where dispatch is padded, else 0
  std::int64_t parts = 1;               // in which they travel (moe.overlap)
  bool cuts_groups = false;             // whether a routing group lies over several ranks
};
// The configuration is resolved.
PlannedRows planned_rows(const Config& config, const Assumptions& assumptions);

}  // namespace switchyard
