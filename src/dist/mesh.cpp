#include "dist/mesh.h"

namespace switchyard {
namespace {

// The ranks that differ from this one only along the axes.
std::unique_ptr<ProcessGroup> along(std::initializer_list<Axis> axes, const Grid& grid, ProcessGroup& world) {
  return world.split(grid.peers(world.rank(), axes).front());
}

// Each rank of stage `from`, `from` + 2, ... with its neighbour in the stage after; ranks without one are alone.
std::unique_ptr<ProcessGroup> pairs(int from, const Grid& grid, ProcessGroup& world) {
  const int rank = world.rank(), stage = grid.coord(rank, Axis::pp), width = world.size() / grid.extent(Axis::pp);
  return world.split(stage >= from && (stage - from) % 2 == 1 ? rank - width : rank);
}

std::unique_ptr<ProcessGroup> first_and_last(const Grid& grid, ProcessGroup& world) {
  const int rank = world.rank(), stage = grid.coord(rank, Axis::pp), last = grid.extent(Axis::pp) - 1;
  const bool is_end = last > 0 && (stage == 0 || stage == last);
  return world.split(is_end ? grid.peers(rank, {Axis::pp, Axis::dp}).front() : rank);
}

}  // namespace

Mesh::Mesh(const ParallelConfig& config, ProcessGroup& world)
    : layout(config, world.size()),
      world(&world),
      data(along({Axis::dp}, layout.dense, world)),
      tensor(along({Axis::tp}, layout.dense, world)),
      tokens(along({Axis::dp, Axis::tp}, layout.dense, world)),
      experts(along({Axis::ep, Axis::etp}, layout.expert, world)),
      expert_data(along({Axis::edp}, layout.expert, world)),
      expert_tensor(along({Axis::etp}, layout.expert, world)),
      previous(pairs(1, layout.dense, world)),
      next(pairs(0, layout.dense, world)),
      ends(first_and_last(layout.dense, world)) {
  if (stage() % 2 == 1) std::swap(previous, next);
}

}  // namespace switchyard
