#pragma once

#include <memory>

#include "dist/grid.h"
#include "dist/process_group.h"

namespace switchyard {

// The communicators of one rank's layout: who shares what with it. Passed in, never global.
//   data         ranks that hold the same cuts of dense layers and read different samples
//   tensor       ranks that a dense layer is cut over; of a batch's rows each has its part (sequence parallelism)
//   tokens       all that see different tokens, data x tensor
//   experts      ranks that one set of experts is spread over and cut over, expert x expert tensor
//   expert_data  ranks that hold the same experts, or cuts of them
struct Mesh {
  Layout layout;
  ProcessGroup* world;  // outlives the mesh
  std::unique_ptr<ProcessGroup> data, tensor, tokens, experts, expert_data;

  Mesh(const ParallelConfig& config, ProcessGroup& world);
};

}  // namespace switchyard
