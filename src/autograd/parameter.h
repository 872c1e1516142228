#pragma once

#include <array>
#include <string>
#include <vector>

#include "autograd/variable.h"

namespace switchyard {

// Which ranks hold the same slice of a parameter, and so sum its gradient: of what tensor parallelism cuts, those that
// read different samples; of what it leaves whole, all that see different tokens; those with copies of the same
// experts; of the table that the first and the last stage of a pipeline share, their ranks that hold the same words.
// None: a slice that this rank alone holds.
enum class Replicas { data, tokens, expert_data, ends, none };
// What forward reads: the f32 value, or that rounded to the type of activations and products.
enum class Reads { f32, rows };
enum class Decay : bool { no, yes };

// The first index on each axis.
using Origin = std::array<std::int64_t, Shape::kMaxRank>;

// A block of a tensor's index space: `shape` elements from `origin` on along each axis.
struct Box {
  Origin origin{};
  Shape shape;

  bool operator==(const Box&) const = default;
};
// The indices [begin, end) of one axis of `whole`, and all of the others.
Box cut(const Box& whole, int axis, std::int64_t begin, std::int64_t end);
// The elements [begin, end) of what the boxes hold one after the other, each row-major, as boxes again: of a box of n
// axes at most 2 n - 1.
std::vector<Box> cut_flat(const std::vector<Box>& boxes, std::int64_t begin, std::int64_t end);
// Where the box's i-th line along the last axis, counted row-major, begins in a tensor of shape `whole`, flat.
std::int64_t start_of_line(const Box& box, const Shape& whole, std::int64_t line);
// f(flat index in a tensor of shape `whole`) for each element of the box, row-major.
template <class F>
void for_each_index(const Box& box, const Shape& whole, F f) {
  const std::int64_t width = box.shape[-1], lines = width == 0 ? 0 : box.shape.numel() / width;
  for (std::int64_t line = 0; line < lines; ++line) {
    const std::int64_t start = start_of_line(box, whole, line);
    for (std::int64_t i = 0; i < width; ++i) f(start + i);
  }
}

// One learnt tensor: a name that is the same on every layout, and this rank's slice of it.
struct Parameter {
  std::string name;   // "model.layers.1.mlp.experts.gate_up_proj"
  Variable variable;  // value and f32 gradient of the slice; the value is the f32 master where no Shards hold that
  Shape global_shape;
  std::vector<Box> boxes{};  // of the logical tensor that the slice holds, one after the other in its memory
  Replicas replicas = Replicas::tokens;
  Reads reads = Reads::f32;
  Decay decay = Decay::yes;
};

using Parameters = std::vector<Parameter>;

}  // namespace switchyard
