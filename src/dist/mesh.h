#pragma once

#include <memory>

#include "dist/grid.h"
#include "dist/process_group.h"

namespace switchyard {

// The communicators of one rank's layout: who shares what with it. Passed in, never global.
//   previous     this rank and its neighbour in the stage before, in the order of the stages; alone in the first stage
//   next         the same with the stage after; alone in the last
//   ends         ranks of the first and the last stage that hold the same cuts of what both have; alone in any other
//                stage, or where one stage is both
//   data         ranks of the stage that hold the same cuts of dense layers and read different samples
//   tensor       ranks that a dense layer is cut over; of a batch's rows each has its part (sequence parallelism)
//   tokens       all that see different tokens, data x tensor
//   experts      ranks that one set of experts is spread over and cut over, expert x expert tensor
//   expert_data  ranks that hold the same experts, or the same cuts of them
//   expert_tensor  ranks that the same experts are cut over
struct Mesh {
  Layout layout;
  ProcessGroup* world;  // outlives the mesh
  std::unique_ptr<ProcessGroup> data, tensor, tokens, experts, expert_data, expert_tensor, previous, next, ends;

  Mesh(const ParallelConfig& config, ProcessGroup& world);

  int stage() const { return layout.dense.coord(world->rank(), Axis::pp); }
  int stages() const { return layout.dense.extent(Axis::pp); }
  bool is_first() const { return stage() == 0; }
  bool is_last() const { return stage() == stages() - 1; }
};

}  // namespace switchyard
