#pragma once

#include <functional>

#include "dist/process_group.h"

namespace switchyard {

// Runs a command on the ranks that mpirun started. An Error that every rank meets is told once, by rank 0; one that
// only some rank meets is told by that rank, and the others are stopped. Returns the exit code; may not return.
int on_ranks(const std::function<int(ProcessGroup& world)>& body);

}  // namespace switchyard
