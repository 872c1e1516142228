#include <vector>

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/onednn.h"
#include "tensor/cpu/product.h"
#include "tensor/cpu/scratch.h"

namespace switchyard::cpu {
namespace {

struct RightScratch;

// The first row of each expert, and the end of the last.
std::vector<std::int64_t> first_rows(const Tensor& offsets_e1, std::int64_t rows_each, std::int64_t experts) {
  std::vector<std::int64_t> begin(static_cast<std::size_t>(experts) + 1);
  const auto* given = offsets_e1 ? offsets_e1.data<std::int32_t>() : nullptr;
  for (std::int64_t e = 0; e <= experts; ++e) begin[static_cast<std::size_t>(e)] = given ? given[e] : e * rows_each;
  return begin;
}

}  // namespace

void grouped_matmul(Tensor& y, const Tensor& x, const Weight& w_EOI, const Tensor& offsets_e1, std::int64_t rows_each,
                    Trans tw) {
  const std::int64_t experts = w_EOI.shape[0], n = y.dim(1), k = x.dim(1);
  const auto begins = first_rows(offsets_e1, rows_each, experts);
  const std::int64_t* begin = begins.data();
  if (x.dtype() == DType::f32) {
    for (std::int64_t e = 0; e < experts; ++e)
      multiply_f32({y.data<float>() + begin[e] * n, n}, {x.data<float>() + begin[e] * k, k},
                   {w_EOI.plain.data<float>() + e * n * k, w_EOI.shape[2]}, begin[e + 1] - begin[e], n, k, Trans::no,
                   tw, Into::overwrite);
    return;
  }
  const auto* packed = reinterpret_cast<const bf16*>((tw == Trans::yes ? w_EOI.forward : w_EOI.backward).bytes());
  std::vector<Product> products;
  for (std::int64_t e = 0; e < experts; ++e)
    products.push_back({.m = begin[e + 1] - begin[e],
                        .n = n,
                        .k = k,
                        .c = {y.bytes() + begin[e] * n * static_cast<std::int64_t>(size_of(y.dtype())), n},
                        .c_dtype = y.dtype(),
                        .a = {x.data<bf16>() + begin[e] * k, k},
                        .b = packed + e * packed_elements(k, n)});
  multiply_all(products);
}

// dw[e] (O, I) = or += dy[e]^T x[e], over the rows of expert e; none make it zero or leave it.
void grouped_matmul_dw(Tensor& dw_EOI, const Tensor& dy_RO, const Tensor& x_RI, const Tensor& offsets_e1,
                       std::int64_t rows_each, Into into) {
  const std::int64_t experts = dw_EOI.dim(0), m = dw_EOI.dim(1), n = dw_EOI.dim(2);
  const auto begins = first_rows(offsets_e1, rows_each, experts);
  const std::int64_t* begin = begins.data();
  float* dw = dw_EOI.data<float>();
  if (x_RI.dtype() == DType::f32) {
    for (std::int64_t e = 0; e < experts; ++e)
      multiply_f32({dw + e * m * n, n}, {dy_RO.data<float>() + begin[e] * m, m}, {x_RI.data<float>() + begin[e] * n, n},
                   m, n, begin[e + 1] - begin[e], Trans::yes, Trans::no, into);
    return;
  }
  std::int64_t size = 0;
  for (std::int64_t e = 0; e < experts; ++e) size += packed_elements(begin[e + 1] - begin[e], n);
  bf16* packed = scratch<RightScratch, bf16>(size);
  std::vector<Product> products;
  for (std::int64_t e = 0; e < experts; ++e) {
    const std::int64_t rows = begin[e + 1] - begin[e];
    pack_right(packed, {x_RI.data<bf16>() + begin[e] * n, n}, rows, n, Trans::no);
    products.push_back({.m = m,
                        .n = n,
                        .k = rows,
                        .c = {reinterpret_cast<std::byte*>(dw + e * m * n), n},
                        .a = {dy_RO.data<bf16>() + begin[e] * m, m},
                        .ta = Trans::yes,
                        .b = packed,
                        .into = into});
    packed += packed_elements(rows, n);
  }
  multiply_all(products);
}

}  // namespace switchyard::cpu
