#include "tensor/cpu/kernels.h"
#include "tensor/cpu/onednn.h"
#include "tensor/cpu/product.h"
#include "tensor/cpu/scratch.h"

namespace switchyard::cpu {
namespace {

struct RightScratch;

}  // namespace

void matmul(Tensor& c, const Tensor& a, const Tensor& b, Trans ta, Trans tb, Into into) {
  const std::int64_t m = c.dim(0), n = c.dim(1), k = a.dim(ta == Trans::yes ? 0 : 1);
  if (a.dtype() == DType::f32) {
    multiply_f32({c.data<float>(), n}, {a.data<float>(), a.dim(1)}, {b.data<float>(), b.dim(1)}, m, n, k, ta, tb, into);
    return;
  }
  bf16* packed = scratch<RightScratch, bf16>(packed_elements(k, n));
  pack_right(packed, {b.data<bf16>(), b.dim(1)}, k, n, tb);
  const Product product{.m = m,
                        .n = n,
                        .k = k,
                        .c = {c.bytes(), n},
                        .c_dtype = c.dtype(),
                        .a = {a.data<bf16>(), a.dim(1)},
                        .ta = ta,
                        .b = packed,
                        .into = into};
  multiply_all({&product, 1});
}

}  // namespace switchyard::cpu
