#pragma once

#include "train/rules.h"

namespace switchyard {

// What alarms must have and must not. There are experts.
void check_health(const Config& config, Rules& rules);

}  // namespace switchyard
