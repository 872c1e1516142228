#pragma once

#include <memory>

#include "dist/grid.h"
#include "dist/process_group.h"

namespace switchyard {

// The communicators of one rank's layout: who shares what with it. Passed in, never global.
//   data         ranks that hold the same dense parameters and read different samples
//   expert       ranks among which the experts of a layer are spread
//   expert_data  ranks that hold the same experts
struct Mesh {
  Layout layout;
  ProcessGroup* world;  // outlives the mesh
  std::unique_ptr<ProcessGroup> data, expert, expert_data;

  Mesh(const ParallelConfig& config, ProcessGroup& world);
};

}  // namespace switchyard
