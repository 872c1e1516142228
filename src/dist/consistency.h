#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "dist/process_group.h"

namespace switchyard {

// Named facts that every rank must agree on before the first step: configuration, code version, parameter shapes.
// Their order does not matter.
using Facts = std::vector<std::pair<std::string, std::string>>;

// Throws the same Error (Fault::communication) on every rank when any fact differs or is missing somewhere, naming the
// fact, the ranks that differ from the majority (of equals, the one with the lowest rank), and both values, of long
// ones the part around the first difference. Cheap where all agree: one broadcast of the facts and one flag. `numbers`:
// what the ranks are called, where not by their place in the group.
void require_agreement(const Facts& facts, ProcessGroup& group, std::span<const int> numbers = {});

}  // namespace switchyard
