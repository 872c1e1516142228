#include "tensor/weight.h"

#include "tensor/cuda/kernels.h"
#include "tensor/cuda/products.cuh"

// A bf16 compute copy is the matrix itself, row-major: cuBLASLt reads it in both directions alike.
namespace switchyard::cuda {

PackedSize packed_size(Shape, DType) { return {.plain = true}; }

void pack(Weight& w, const Tensor& master) { copy(w.plain, master); }

void weight_matmul(Tensor& y, const Tensor& x, const Weight& w, Trans tw) {
  matmul(y, x, w.plain, Trans::no, tw, Into::overwrite);
}

}  // namespace switchyard::cuda
