#pragma once

#include <optional>

#include "dist/process_group.h"

namespace switchyard {

// The name of the machine that this process runs on.
std::string host_name();

// The GPU of each rank: the n-th of its machine for the n-th rank there, and round again where there are more ranks
// than GPUs. Nothing where no rank sees one. Where some ranks see one and others do not, Error (Fault::usage), the same
// on every rank.
std::optional<Device> gpu_of_rank(ProcessGroup& world);

}  // namespace switchyard
