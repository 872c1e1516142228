#include "dist/grid.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "tensor/error.h"

namespace switchyard {

std::ostream& operator<<(std::ostream& out, Axis axis) {
  switch (axis) {
    case Axis::pp: return out << "pp";
    case Axis::dp: return out << "dp";
    case Axis::tp: return out << "tp";
    case Axis::edp: return out << "edp";
    case Axis::ep: return out << "ep";
    case Axis::etp: return out << "etp";
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

// "1 rank", "4 ranks".
std::string ranks(int n) { return text(n, n == 1 ? " rank" : " ranks"); }

// The configuration with every number filled in, or the reason why this world cannot have it.
ParallelConfig resolve(ParallelConfig config, int world_size) {
  const auto fits = [](const char* key, int value, const std::string& of, int whole) {
    SY_REQUIRE(value >= 1 && whole % value == 0, Fault::usage, "parallel.", key, " = ", value, " does not divide ", of,
               "; ", nearest_divisors(whole, value));
  };
  const std::string whole = text("the run's ", ranks(world_size));
  fits("pipeline", config.pipeline, whole, world_size);
  const int stage = world_size / config.pipeline;  // its ranks
  fits("tensor", config.tensor, config.pipeline > 1 ? text("a stage's ", ranks(stage)) : whole, stage);
  const int data = stage / config.tensor;
  if (config.data == 0) config.data = data;
  SY_REQUIRE(config.data == data, Fault::usage, "parallel.data = ", config.data,
             config.pipeline > 1 ? text(" with parallel.pipeline = ", config.pipeline) : "",
             config.tensor > 1 ? text(" with parallel.tensor = ", config.tensor) : "", " does not fit ",
             ranks(world_size), "; ", data, " does, or 0 for all of them");
  fits("expert_tensor", config.expert_tensor, text("data x tensor = ", stage), stage);
  const int places = stage / config.expert_tensor;
  fits("expert", config.expert,
       config.expert_tensor > 1 ? text("data x tensor / expert_tensor = ", places) : text("data x tensor = ", stage),
       places);
  return config;
}

Grid expert_view(const ParallelConfig& resolved) {
  const int ranks = resolved.data * resolved.tensor, copies = ranks / (resolved.expert * resolved.expert_tensor);
  return Grid({{Axis::pp, resolved.pipeline},
               {Axis::edp, copies},
               {Axis::ep, resolved.expert},
               {Axis::etp, resolved.expert_tensor}});
}

Grid dense_view(const ParallelConfig& resolved) {
  return Grid({{Axis::pp, resolved.pipeline}, {Axis::dp, resolved.data}, {Axis::tp, resolved.tensor}});
}

}  // namespace

Layout::Layout(const ParallelConfig& config, int world_size)
    : dense(dense_view(resolve(config, world_size))), expert(expert_view(resolve(config, world_size))) {}

std::string describe(const Layout& layout) {
  return text("pipeline ", layout.dense.extent(Axis::pp), ", data ", layout.dense.extent(Axis::dp), ", tensor ",
              layout.dense.extent(Axis::tp), ", expert ", layout.expert.extent(Axis::ep), ", expert_tensor ",
              layout.expert.extent(Axis::etp));
}

}  // namespace switchyard
