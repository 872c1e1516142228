#include "tensor/cuda/stream.h"
#include "tensor/cuda/table.h"

namespace switchyard::cuda {
namespace {

[[noreturn]] void refuse() {
  throw Error(
      "this build has no CUDA backend: run.device = cpu does without; to have it, build where nvcc is (README, GPUs)",
      Fault::usage);
}

}  // namespace

const Kernels& table() { refuse(); }
void synchronize(Device) { refuse(); }

bool is_built() { return false; }
int gpu_count() { return 0; }

// Asked only about GPUs, of which there are none.
std::string gpu_name(int) { return {}; }
std::string gpu_address(int) { return {}; }
void pin(std::byte*, std::size_t) {}
void unpin(std::byte*) {}

}  // namespace switchyard::cuda
