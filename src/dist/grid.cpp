#include "dist/grid.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "tensor/error.h"

namespace switchyard {

std::ostream& operator<<(std::ostream& out, Axis axis) {
  switch (axis) {
    case Axis::dp: return out << "dp";
    case Axis::edp: return out << "edp";
    case Axis::ep: return out << "ep";
  }
  return out;
}

Grid::Grid(std::vector<Extent> extents) : extents_(std::move(extents)) {
  for (auto [axis, size] : extents_) SY_CHECK(size >= 1, "axis ", axis, " has size ", size);
}

int Grid::size() const {
  int n = 1;
  for (auto e : extents_) n *= e.size;
  return n;
}

int Grid::extent(Axis axis) const {
  auto it = std::ranges::find(extents_, axis, &Extent::axis);
  SY_CHECK(it != extents_.end(), "this grid has no axis ", axis);
  return it->size;
}

int Grid::stride(Axis axis) const {
  int stride = 1;
  for (auto it = extents_.rbegin(); it->axis != axis; ++it) stride *= it->size;
  return stride;
}

int Grid::coord(int rank, Axis axis) const {
  SY_CHECK(0 <= rank && rank < size(), "rank ", rank, " of ", size());
  const int n = extent(axis);
  return rank / stride(axis) % n;
}

std::vector<int> Grid::peers(int rank, std::initializer_list<Axis> axes) const {
  std::vector<int> ranks{rank};
  for (Axis axis : axes) {
    std::vector<int> wider;
    for (int r : ranks)
      for (int i = 0; i < extent(axis); ++i) wider.push_back(r + (i - coord(r, axis)) * stride(axis));
    ranks = std::move(wider);
  }
  std::ranges::sort(ranks);
  return ranks;
}

namespace {

// The divisors of n that come closest to `wanted`, at most four: "1, 2 and 4 do".
std::string nearest_divisors(int n, int wanted) {
  std::vector<int> divisors;
  for (int d = 1; d <= n; ++d)
    if (n % d == 0) divisors.push_back(d);
  std::ranges::stable_sort(divisors, {}, [&](int d) { return std::abs(static_cast<long>(d) - wanted); });
  divisors.resize(std::min<std::size_t>(divisors.size(), 4));
  std::ranges::sort(divisors);

  std::string out = text(divisors.front());
  for (std::size_t i = 1; i < divisors.size(); ++i) out += text(i + 1 < divisors.size() ? ", " : " and ", divisors[i]);
  return out + (divisors.size() == 1 ? " does" : " do");
}

// The configuration with every number filled in, or the reason why this world cannot have it.
ParallelConfig resolve(ParallelConfig config, int world_size) {
  if (config.data == 0) config.data = world_size;
  SY_REQUIRE(config.data == world_size, Fault::usage, "parallel.data = ", config.data, " does not fit ", world_size,
             world_size == 1 ? " rank; " : " ranks; ", world_size, " does, or 0 for all of them");
  SY_REQUIRE(config.expert >= 1 && config.data % config.expert == 0, Fault::usage, "parallel.expert = ", config.expert,
             " does not divide parallel.data = ", config.data, "; ", nearest_divisors(config.data, config.expert));
  return config;
}

Grid expert_view(const ParallelConfig& resolved) {
  return Grid({{Axis::edp, resolved.data / resolved.expert}, {Axis::ep, resolved.expert}});
}

}  // namespace

Layout::Layout(const ParallelConfig& config, int world_size)
    : dense({{Axis::dp, world_size}}), expert(expert_view(resolve(config, world_size))) {}

}  // namespace switchyard
