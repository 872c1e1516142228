#include "dist/mesh.h"

namespace switchyard {
namespace {

// The ranks that differ from this one only along the axis.
std::unique_ptr<ProcessGroup> along(Axis axis, const Grid& grid, ProcessGroup& world) {
  return world.split(grid.peers(world.rank(), {axis}).front());
}

}  // namespace

Mesh::Mesh(const ParallelConfig& config, ProcessGroup& world)
    : layout(config, world.size()),
      world(&world),
      data(along(Axis::dp, layout.dense, world)),
      expert(along(Axis::ep, layout.expert, world)),
      expert_data(along(Axis::edp, layout.expert, world)) {}

}  // namespace switchyard
