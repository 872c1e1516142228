#include "tensor/weight.h"

#include <algorithm>

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/onednn.h"
#include "tensor/cpu/product.h"

// A bf16 compute copy is the matrix as packed right operand twice, matrix after matrix of a stack: `forward` is w^T
// (I, O), `backward` is w (O, I). There is no row-major copy.
namespace switchyard::cpu {

PackedSize packed_size(Shape weight, DType dtype) {
  if (dtype == DType::f32) return {.plain = true};
  const std::int64_t experts = weight.rank() == 3 ? weight[0] : 1, out = weight[-2], in = weight[-1];
  const auto bytes = experts * packed_elements(in, out) * static_cast<std::int64_t>(sizeof(bf16));
  return {.plain = false, .forward = bytes, .backward = bytes};
}

void pack(Weight& w, const Tensor& master) {
  const std::int64_t out = w.shape[-2], in = w.shape[-1], experts = w.shape.rank() == 3 ? w.shape[0] : 1;
  const std::int64_t out_panels = panels(out), in_panels = panels(in), size = packed_elements(in, out);
  auto* forward = reinterpret_cast<bf16*>(w.forward.bytes());
  auto* backward = reinterpret_cast<bf16*>(w.backward.bytes());
  const float* from = master.data<float>();
#pragma omp parallel for schedule(static)
  for (std::int64_t strip = 0; strip < experts * out_panels; ++strip) {
    const std::int64_t e = strip / out_panels, o = strip % out_panels, rows = std::min(out - o * kPanel, kPanel);
    const float* corner = from + (e * out + o * kPanel) * in;
    for (std::int64_t i = 0; i < in_panels; ++i)
      pack_weight_block(forward + e * size + (o * in_panels + i) * kBlockSize,
                        backward + e * size + (i * out_panels + o) * kBlockSize, {corner + i * kPanel, in}, rows,
                        std::min(in - i * kPanel, kPanel));
  }
}

void weight_matmul(Tensor& y, const Tensor& x, const Weight& w, Trans tw) {
  const std::int64_t m = x.dim(0), n = y.dim(1), k = x.dim(1);
  if (x.dtype() == DType::f32) {
    multiply_f32({y.data<float>(), n}, {x.data<float>(), k}, {w.plain.data<float>(), w.shape[-1]}, m, n, k, Trans::no,
                 tw, Into::overwrite);
    return;
  }
  const Tensor& packed = tw == Trans::yes ? w.forward : w.backward;
  const Product product{.m = m,
                        .n = n,
                        .k = k,
                        .c = {y.bytes(), n},
                        .c_dtype = y.dtype(),
                        .a = {x.data<bf16>(), k},
                        .b = reinterpret_cast<const bf16*>(packed.bytes())};
  multiply_all({&product, 1});
}

}  // namespace switchyard::cpu
