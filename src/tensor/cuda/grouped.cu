#include <algorithm>
#include <vector>

#include "tensor/cuda/kernels.h"
#include "tensor/cuda/products.cuh"

namespace switchyard::cuda {
namespace {

// The i32 offsets, which cuBLASLt wants on the host; where they are on the device, the host waits for them.
std::vector<std::int32_t> read(Context& on, const Tensor& offsets_e1) {
  std::vector<std::int32_t> offsets(static_cast<std::size_t>(offsets_e1.numel()));
  if (offsets_e1.device().type == DeviceType::cpu)
    std::copy_n(offsets_e1.data<std::int32_t>(), offsets.size(), offsets.data());
  else
    on.copy_out(reinterpret_cast<std::byte*>(offsets.data()), offsets_e1.bytes(), offsets_e1.size_in_bytes());
  return offsets;
}

const std::byte* at(const Tensor& t, std::int64_t element) {
  return t.bytes() + element * static_cast<std::int64_t>(size_of(t.dtype()));
}
std::byte* at(Tensor& t, std::int64_t element) { return const_cast<std::byte*>(at(std::as_const(t), element)); }

// Every grouped product goes through here, and a grouped kernel of our own would take the place of this function:
// product(e, first, rows, batch) is what expert e does with the rows [first, first + rows), and the batch - 1 experts
// after it with as many rows each. `varies` is the size that the rows are.
template <class MakeProduct>
void multiply_by_expert(Context& on, const Tensor& offsets_e1, std::int64_t rows_each, std::int64_t experts,
                        std::int64_t all_rows, std::int64_t ProductShape::*varies, MakeProduct product) {
  if (rows_each > 0 || all_rows == 0) return on.products().run(product(0, 0, rows_each, experts));
  const std::vector<std::int32_t> offsets = read(on, offsets_e1);
  std::vector<Product> products;
  for (std::int64_t e = 0; e < experts; ++e) {
    const std::int64_t first = offsets[std::size_t(e)], rows = offsets[std::size_t(e) + 1] - first;
    products.push_back(product(e, first, rows, 1));
  }
  on.products().run_all(products, varies);
}

}  // namespace

void grouped_matmul(Tensor& y, const Tensor& x, const Weight& w_EOI, const Tensor& offsets_e1, std::int64_t rows_each,
                    Trans tw) {
  const std::int64_t experts = w_EOI.shape[0], n = y.dim(1), k = x.dim(1);
  const auto product = [&](std::int64_t e, std::int64_t first, std::int64_t rows, std::int64_t batch) {
    return Product{
        .c = at(y, first * n),
        .a = at(x, first * k),
        .b = at(w_EOI.plain, e * n * k),
        .shape = {.rows = rows, .cols = n, .inner = k, .tb = tw, .in = x.dtype(), .out = y.dtype(), .batch = batch}};
  };
  multiply_by_expert(context(y.device()), offsets_e1, rows_each, experts, x.dim(0), &ProductShape::rows, product);
}

// dw[e] (O, I) = or += dy[e]^T x[e], over the rows of expert e; none make it zero or leave it.
void grouped_matmul_dw(Tensor& dw_EOI, const Tensor& dy_RO, const Tensor& x_RI, const Tensor& offsets_e1,
                       std::int64_t rows_each, Into into) {
  const std::int64_t experts = dw_EOI.dim(0), m = dw_EOI.dim(1), n = dw_EOI.dim(2);
  const auto product = [&](std::int64_t e, std::int64_t first, std::int64_t rows, std::int64_t batch) {
    return Product{.c = at(dw_EOI, e * m * n),
                   .a = at(dy_RO, first * m),
                   .b = at(x_RI, first * n),
                   .shape = {.rows = m,
                             .cols = n,
                             .inner = rows,
                             .ta = Trans::yes,
                             .in = x_RI.dtype(),
                             .out = DType::f32,
                             .batch = batch},
                   .into = into};
  };
  multiply_by_expert(context(dw_EOI.device()), offsets_e1, rows_each, experts, x_RI.dim(0), &ProductShape::inner,
                     product);
}

}  // namespace switchyard::cuda
