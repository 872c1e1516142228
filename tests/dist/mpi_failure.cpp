#include <cstring>
#include <iostream>

#include "dist/process_group.h"

// Run under mpirun by mpi_failure_test.sh: rank 1 fails while the others wait for it.
//   abort   the error is caught where the world still lives, and ends the job
//   leave   the error takes the world down with it; the process just ends

namespace {

using namespace switchyard;

void fail_on_rank_1(ProcessGroup& world) {
  world.barrier();
  if (world.rank() == 1) throw Error("rank 1 fails on purpose", Fault::numeric);
  world.barrier();
}

int exit_code(const Error& error) {
  std::cerr << error.what() << std::endl;
  return static_cast<int>(error.fault());
}

}  // namespace

int main(int, char** argv) {
  try {
    const auto world = make_mpi_world();
    try {
      fail_on_rank_1(*world);
    } catch (const Error& error) {
      if (std::strcmp(argv[1], "abort") == 0) world->abort(exit_code(error));
      throw;
    }
  } catch (const Error& error) {
    return exit_code(error);
  }
}
