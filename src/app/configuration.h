#pragma once

#include <string>
#include <vector>

#include "dist/process_group.h"
#include "train/config.h"

namespace switchyard {

// Reads a configuration file on rank 0, hands its text to every rank, and checks it there with the overrides.
Config load_config(const std::string& path, const std::vector<std::string>& overrides, ProcessGroup& world);

}  // namespace switchyard
