#pragma once

#include <string>
#include <vector>

#include "train/config.h"

namespace switchyard {

// A rule between keys that a configuration breaks: the keys it is about, the one to change first, and what to change.
struct Violation {
  std::vector<std::string> keys;
  std::string what;
};

// Everything that no run could have, whatever its ranks. read_config reports these with their places.
std::vector<Violation> violations(const Config& config);

// Throws Error (Fault::usage) with a line for each reason why `world_size` ranks cannot run this configuration, and the
// nearest values that would do.
void check_layout(const Config& config, int world_size);

// Throws Error (Fault::usage) if there is nothing to train on. Other commands do without.
void check_training(const Config& config);

// What is allowed but rarely meant, a line each.
std::vector<std::string> warnings(const Config& config);

// The configuration with every "0 means ..." filled in that it decides itself; `world_size` also decides parallel.data
// and train.micro_batch. Those stay 0 where it is 0 (unknown), as do run.threads, train.eval_batches and
// optim.schedule.decay_steps, which the machine, the data and the schedule decide.
Config resolved(Config config, int world_size = 0);

}  // namespace switchyard
