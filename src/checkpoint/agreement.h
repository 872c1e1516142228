#pragma once

#include <functional>
#include <string>
#include <vector>

#include "dist/process_group.h"

namespace switchyard {

// Runs `local` on every rank and gives every rank the texts of all, in rank order. Where it throws on any rank, every
// rank throws the same Error, naming the first rank that failed: no rank goes on to wait for one that gave up.
// `local` itself must not communicate.
std::vector<std::string> gather_or_fail(ProcessGroup& world, const std::function<std::string()>& local);

// The same for work whose result nobody else needs.
void all_or_fail(ProcessGroup& world, const std::function<void()>& local);
// The same for work that only rank 0 does; every rank gets its text.
std::string root_or_fail(ProcessGroup& world, const std::function<std::string()>& local);

}  // namespace switchyard
