#pragma once

#include <string>

#include "dist/process_group.h"

namespace switchyard {

// What all ranks have to say, said once, by rank 0: a line on standard output, or "warning: line" or "error: line" on
// standard error.
void say(const ProcessGroup& world, const std::string& line);
void warn(const ProcessGroup& world, const std::string& line);
void tell_error(const ProcessGroup& world, const std::string& line);

}  // namespace switchyard
