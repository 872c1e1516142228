#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "autograd/parameter.h"
#include "dist/mesh.h"

namespace switchyard {

// Named facts that every rank must agree on before the first step: configuration, code version, parameter shapes.
// Their order does not matter.
using Facts = std::vector<std::pair<std::string, std::string>>;

// Throws the same Error (Fault::communication) on every rank when any fact differs or is missing somewhere, naming the
// fact, the ranks that differ from the majority (of equals, the one with the lowest rank), and both values, of long
// ones the part around the first difference. Cheap where all agree: one broadcast of the facts and one flag. `numbers`:
// what the ranks are called, where not by their place in the group.
void require_agreement(const Facts& facts, ProcessGroup& group, std::span<const int> numbers = {});

// Throws the same Error on every rank where ranks are not at the same step, or a parameter has not the same bits on
// each of the ranks that hold the same slice of it (Replicas): names the parameter and the ranks that differ from most.
void require_same_replicas(const Parameters& parameters, std::int64_t step, Mesh& mesh);

}  // namespace switchyard
