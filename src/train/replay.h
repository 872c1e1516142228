#pragma once

#include "train/health.h"
#include "train/record.h"

namespace switchyard {

// Another way to route: the configuration of the record, with other keys of its `router` section.
struct Policy {
  std::string name;
  Config config;  // resolved
};

// From "KEY=VALUE KEY=VALUE …", the keys with or without "router." before them; empty: as recorded. A kind begins from
// that kind's own values instead of the recorded ones. Error (Fault::usage) with all that is wrong.
Policy policy_of(const Record& record, const std::string& changes);

// The health of every MoE block, over all steps of the record, had this policy met the same logits. Its routers are the
// real ones. What comes before logits (jitter, noise) has happened; the rows that reached later blocks are those that
// the recorded policy let through. In `balance_term` the load loss is missing, for the noise's deviations are not
// recorded, and a loss over micro-batches is over whole steps. For one rank.
std::vector<LayerHealth> replay(const Record& record, const Policy& policy, ProcessGroup& world);

}  // namespace switchyard
