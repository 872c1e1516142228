#include "app/ranks.h"

#include <chrono>
#include <cstdio>
#include <new>
#include <thread>

namespace switchyard {
namespace {

// What a user may do about Fault::memory.
constexpr const char* kLessMemory =
    "; less is taken by a smaller train.micro_batch, train.recompute = block and, on several ranks, "
    "parallel.shard_optimizer = true; `switchyard plan` tells how much";

// Rank 0 speaks at once and ends the job; another rank first leaves it the time to do so, since most errors are met by
// all, and only then speaks for itself.
int give_up(ProcessGroup& world, const char* what, Fault fault) {
  const char* advice = fault == Fault::memory ? kLessMemory : "";
  if (world.rank() == 0) {
    std::fprintf(stderr, "error: %s%s\n", what, advice);
  } else {
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));
    std::fprintf(stderr, "error: rank %d: %s%s\n", world.rank(), what, advice);
  }
  std::fflush(stderr);
  if (world.size() > 1) world.abort(static_cast<int>(fault));
  return static_cast<int>(fault);
}

}  // namespace

int on_ranks(const std::function<int(ProcessGroup&)>& body) {
  const auto world = make_mpi_world();
  try {
    return body(*world);
  } catch (const Error& error) {
    // Usage is judged from what all ranks share, so all of them are here: no need to stop anyone.
    if (error.fault() == Fault::usage) {
      if (world->rank() == 0) std::fprintf(stderr, "error: %s\n", error.what());
      return static_cast<int>(Fault::usage);
    }
    return give_up(*world, error.what(), error.fault());
  } catch (const std::bad_alloc&) {
    return give_up(*world, "no memory left", Fault::memory);
  } catch (const std::exception& error) {
    return give_up(*world, error.what(), Fault::internal);
  }
}

}  // namespace switchyard
