#pragma once

#include <string>

#include "dist/process_group.h"
#include "tensor/memory.h"
#include "train/memory_plan.h"

namespace switchyard {

// Lines of one table, MiB by category: what was planned for a rank, and what the rank that uses most has, now or at its
// worst moment. Measured lines are collective; every rank gets the text.
std::string memory_head();
std::string memory_line(const MemoryPlan& plan);
enum class Moment { now, peak };
std::string memory_line(const std::string& title, Device device, Moment moment, ProcessGroup& world);

}  // namespace switchyard
