#pragma once

#include <vector>

#include "model/pipeline.h"

namespace switchyard {

// What each MoE block decides about this rank's tokens of a pass, on the host. Forward alone; every rank calls.
std::vector<Decisions> decide(Pipeline& model, MicroBatch batch);

}  // namespace switchyard
