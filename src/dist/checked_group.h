#pragma once

#include <memory>

#include "dist/process_group.h"

namespace switchyard {

// The ranks of `group`, whatever it is, who before each collective, in this group and in those split from it, compare
// what they call, in which part of the model (Scope), and with which shape. Where they differ, the same Error
// (Fault::communication) on every rank names those that differ from most, and what each has. For finding faults: each
// collective waits for several small ones.
std::unique_ptr<ProcessGroup> make_checked_group(std::unique_ptr<ProcessGroup> group);

}  // namespace switchyard
