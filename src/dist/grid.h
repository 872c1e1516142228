#pragma once

#include <cstdint>
#include <initializer_list>
#include <ostream>
#include <string>
#include <vector>

namespace switchyard {

// Pipeline, data and tensor; expert data, expert and expert tensor.
enum class Axis { pp, dp, tp, edp, ep, etp };

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

// How ranks share the work. The blocks are cut into `pipeline` stages of data x tensor neighbouring ranks each. In a
// stage dense layers are cut over `tensor` neighbouring ranks, which read the same samples. The experts of a layer are
// spread over `expert` times `expert_tensor` neighbouring ranks, each cut over `expert_tensor` of them; further ranks
// of the stage hold copies of the same experts.
struct ParallelConfig {
  int data = 0;  // 0: as many as there are ranks for
  int pipeline = 1;
  int tensor = 1;
  int expert = 1;
  int expert_tensor = 1;
  bool shard_optimizer = false;
  double timeout_s = 600;
  std::int64_t check_every = 1000;

  template <class V>
  void describe(V& v) {
    v.field("data", data, "ranks that read different samples; 0 means all ranks / (pipeline x tensor)")
        .between(0, 1 << 24);
    v.field("pipeline", pipeline, "stages that the blocks are cut into, which work on micro-batches in turn (1F1B)")
        .between(1, 4096);
    v.field("tensor", tensor, "ranks that each dense layer is cut over (Megatron, with sequence parallelism)")
        .between(1, 1 << 24);
    v.field("expert", expert, "ranks that the experts of a layer are spread over; divides data x tensor")
        .between(1, 1 << 24);
    v.field("expert_tensor", expert_tensor,
            "ranks that each expert is cut over; expert x expert_tensor divides data x tensor")
        .between(1, 1 << 24);
    v.field("shard_optimizer", shard_optimizer,
            "share masters and optimizer states out over the ranks that hold the same parameters (ZeRO-1)");
    v.field("timeout_s", timeout_s, "seconds after which a rank that waits in vain ends the run and says for whom")
        .between(1, 1000000);
    v.field("check_every", check_every,
            "steps between comparisons of the ranks' copies of parameters; 0 compares only before the first step")
        .between(0, 1'000'000'000);
  }
};

// Two views of the same ranks: dense layers see (pp, dp, tp), experts see (pp, edp, ep, etp). Refuses a world that does
// not fit with Error (Fault::usage) and says which would.
struct Layout {
  Grid dense, expert;
  Layout(const ParallelConfig& config, int world_size);
};
// "pipeline 1, data 4, tensor 1, expert 2, expert_tensor 1", as the configuration names them.
std::string describe(const Layout& layout);

}  // namespace switchyard
