#include "tensor/cuda/stream.h"
#include "tensor/cuda/table.h"

namespace switchyard::cuda {
namespace {

[[noreturn]] void refuse() { throw Error("this build has no CUDA backend; use device: cpu", Fault::usage); }

}  // namespace

const Kernels& table() { refuse(); }
void synchronize(Device) { refuse(); }

int gpu_count() { return 0; }

// Asked only about GPUs, of which there are none.
std::string gpu_address(int) { return {}; }
void pin(std::byte*, std::size_t) {}
void unpin(std::byte*) {}

}  // namespace switchyard::cuda
