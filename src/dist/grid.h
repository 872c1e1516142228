#pragma once

#include <initializer_list>
#include <ostream>
#include <vector>

namespace switchyard {

enum class Axis { dp, edp, ep };

std::ostream& operator<<(std::ostream& out, Axis axis);

// Ranks 0..size-1 laid out on named axes; the last axis varies fastest. Arithmetic only:
// no communicator is needed to ask who sits where.
class Grid {
 public:
  struct Extent {
    Axis axis;
    int size;
  };
  explicit Grid(std::vector<Extent> extents);

  int size() const;
  int extent(Axis axis) const;
  int coord(int rank, Axis axis) const;
  // The ranks that differ from `rank` only along `axes`, in increasing order, `rank` among them.
  std::vector<int> peers(int rank, std::initializer_list<Axis> axes) const;

 private:
  int stride(Axis axis) const;
  std::vector<Extent> extents_;
};

// How ranks share the work. `data` ranks make the world; the experts of a layer are spread over `expert` neighbouring
// ones, and every further `expert` ranks hold copies of the same experts.
struct ParallelConfig {
  int data = 0;  // 0: all ranks there are
  int expert = 1;

  template <class V>
  void describe(V& v) {
    v.field("data", data, "ranks that read different samples; 0 means all of them").between(0, 1 << 24);
    v.field("expert", expert, "ranks that the experts of a layer are spread over; divides data").between(1, 1 << 24);
  }
};

// Two views of the same ranks: dense layers see (dp), experts see (edp, ep). Refuses a world that does not fit with
// Error (Fault::usage) and says which would.
struct Layout {
  Grid dense, expert;
  Layout(const ParallelConfig& config, int world_size);
};

}  // namespace switchyard
