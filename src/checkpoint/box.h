#pragma once

#include <optional>
#include <span>
#include <string>

#include "autograd/parameter.h"

namespace switchyard {

// What both hold; nothing when they do not touch.
std::optional<Box> intersect(const Box& a, const Box& b);

// Empty when the boxes lie within `shape` and hold each of its elements exactly once; else what is wrong.
std::string partition_problem(const Shape& shape, std::span<const Box> boxes);

}  // namespace switchyard
