#pragma once

#include <string>
#include <vector>

#include "train/rules.h"

namespace switchyard {

// What alarms must have and must not. There are experts.
void check_health(const Config& config, Rules& rules);

// Of alarms that cannot fire, or will not in this run, a line each; those that every configuration begins with are not
// spoken of.
std::vector<std::string> health_warnings(const Config& config);

}  // namespace switchyard
