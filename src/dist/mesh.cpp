#include "dist/mesh.h"

namespace switchyard {
namespace {

// The ranks that differ from this one only along the axes.
std::unique_ptr<ProcessGroup> along(std::initializer_list<Axis> axes, const Grid& grid, ProcessGroup& world) {
  return world.split(grid.peers(world.rank(), axes).front());
}

}  // namespace

Mesh::Mesh(const ParallelConfig& config, ProcessGroup& world)
    : layout(config, world.size()),
      world(&world),
      data(along({Axis::dp}, layout.dense, world)),
      tensor(along({Axis::tp}, layout.dense, world)),
      tokens(along({Axis::dp, Axis::tp}, layout.dense, world)),
      experts(along({Axis::ep, Axis::etp}, layout.expert, world)),
      expert_data(along({Axis::edp}, layout.expert, world)) {}

}  // namespace switchyard
