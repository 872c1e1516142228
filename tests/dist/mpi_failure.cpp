#include <csignal>
#include <cstring>
#include <iostream>
#include <map>
#include <thread>

#include "dist/process_group.h"

// Run under mpirun by mpi_failure_test.sh: rank 1 fails, in the way that the argument names, while the others wait for
// it. They say what they learn, and then end the job.

namespace {

using namespace switchyard;
using Way = void (*)(ProcessGroup& world);

void sum(ProcessGroup& group, std::int64_t n = 3) {
  Tensor x = Tensor::zeros({n}, DType::f32, Device{});
  group.all_reduce(x, Reduce::sum);
}

void all_but_1_sum(ProcessGroup& world, Way instead) {
  world.set_timeout(2);
  sum(world);
  world.rank() == 1 ? instead(world) : sum(world);
}

void fail(ProcessGroup& world) {
  world.barrier();
  if (world.rank() == 1) throw Error("rank 1 fails on purpose", Fault::numeric);
  world.barrier();
}

const std::map<std::string, Way> kWays{
    {"abort", fail},  // the error is caught where the world still lives, and ends the job
    {"leave", fail},  // the error takes the world down with it; the process just ends
    {"kill", [](ProcessGroup& world) { all_but_1_sum(world, [](ProcessGroup&) { std::raise(SIGKILL); }); }},
    {"stop", [](ProcessGroup& world) { all_but_1_sum(world, [](ProcessGroup&) { std::raise(SIGSTOP); }); }},
    {"spin",
     [](ProcessGroup& world) {
       all_but_1_sum(world, [](ProcessGroup&) {
         for (volatile bool forever = true; forever;) {
         }
       });
     }},
    // the others have begun two exchanges, and await the first
    {"started",
     [](ProcessGroup& world) {
       world.set_timeout(2);
       sum(world);
       if (world.rank() == 1) std::raise(SIGSTOP);
       const std::vector<int> one(std::size_t(world.size()), 1);
       const Tensor in = Tensor::zeros({world.size(), 100'000}, DType::f32, Device{});
       Tensor first = empty_like(in), second = empty_like(in);
       const Wait first_came = world.start_all_to_all(first, one, in, one);
       const Wait second_came = world.start_all_to_all(second, one, in, one);
       first_came();
       second_came();
     }},
    // rank 2 waits for rank 0, which waits for rank 1
    {"stop_behind",
     [](ProcessGroup& world) {
       world.set_timeout(2);
       const auto pair = world.split(world.rank() / 2), other = world.split(world.rank() % 2);
       if (world.rank() == 1) std::raise(SIGSTOP);
       sum(world.rank() == 2 ? *other : *pair);
     }},
    {"call",
     [](ProcessGroup& world) {
       all_but_1_sum(world, [](ProcessGroup& group) { broadcast_text(group, "a text that nobody awaits", 1); });
     }},
    {"shape", [](ProcessGroup& world) { all_but_1_sum(world, [](ProcessGroup& group) { sum(group, 5000); }); }},
    {"small_shape", [](ProcessGroup& world) { all_but_1_sum(world, [](ProcessGroup& group) { sum(group, 1); }); }},
    {"group",
     [](ProcessGroup& world) {
       world.set_timeout(2);
       const auto part = world.split(0);
       sum(world.rank() == 1 ? *part : world);
     }},
    // rank 1 has done its work while the others wait for more
    {"return", [](ProcessGroup& world) { all_but_1_sum(world, [](ProcessGroup&) {}); }},
    // a rank that is late, but not too late
    {"late",
     [](ProcessGroup& world) {
       all_but_1_sum(world, [](ProcessGroup& group) {
         std::this_thread::sleep_for(std::chrono::milliseconds(1700));
         sum(group);
       });
     }},
};

int exit_code(const Error& error) { return static_cast<int>(error.fault()); }

}  // namespace

int main(int, char** argv) {
  const std::string way = argv[1];
  try {
    const auto world = make_mpi_world();
    try {
      kWays.at(way)(*world);
    } catch (const Error& error) {
      std::cerr << text("<rank ", world->rank(), "> ", error.what(), "\n") << std::flush;
      if (way == "leave") throw;
      std::this_thread::sleep_for(std::chrono::milliseconds(800));  // the others speak too
      world->abort(exit_code(error));
    }
  } catch (const Error& error) {
    return exit_code(error);
  }
}
