#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "autograd/parameter.h"

namespace switchyard {

// What both hold; nothing when they do not touch.
std::optional<Box> intersect(const Box& a, const Box& b);

// The elements [begin, end) of a row-major tensor as boxes in the order of the elements: at most two an axis, less one.
std::vector<Box> boxes_of_range(const Shape& shape, std::int64_t begin, std::int64_t end);

// Empty when the boxes lie within `shape` and hold each of its elements exactly once; else what is wrong.
std::string partition_problem(const Shape& shape, std::span<const Box> boxes);

}  // namespace switchyard
