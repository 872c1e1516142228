#include "tensor/cuda/table.h"

namespace switchyard::cuda {

const Kernels& table() { throw Error("this build has no CUDA backend; use device: cpu", Fault::usage); }

}  // namespace switchyard::cuda
