#pragma once

#include "train/rules.h"

namespace switchyard {

// What keys of the router must fit each other, the experts and the model. There are experts.
void check_router(const Config& config, Rules& rules);

}  // namespace switchyard
