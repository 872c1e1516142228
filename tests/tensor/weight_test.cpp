#include "product_check.h"
#include "tensor/kernels.h"

namespace switchyard {
namespace {

using test::at;
using test::random_rows;

class WeightProduct : public testing::TestWithParam<DType> {};

INSTANTIATE_TEST_SUITE_P(Types, WeightProduct, testing::Values(DType::f32, DType::bf16),
                         [](const auto& info) { return std::string(name_of(info.param)); });

void expect_products(const Weight& weight, const Tensor& master, DType dtype, std::int64_t rows) {
  const std::int64_t out = master.dim(0), in = master.dim(1);
  const Tensor w = cast(master, dtype), x = random_rows({rows, in}, dtype, 2), dy = random_rows({rows, out}, dtype, 3);
  for (DType result : {dtype, DType::f32}) {
    Tensor y = Tensor::empty({rows, out}, result, Device{}), dx = Tensor::empty({rows, in}, result, Device{});
    kernels(Device{}).weight_matmul(y, x, weight, Trans::yes);
    kernels(Device{}).weight_matmul(dx, dy, weight, Trans::no);
    test::ProductCheck{.m = rows,
                       .n = out,
                       .k = in,
                       .a = [&](auto r, auto i) { return at(x, r * in + i); },
                       .b = [&](auto i, auto o) { return at(w, o * in + i); }}(y);
    test::ProductCheck{.m = rows,
                       .n = in,
                       .k = out,
                       .a = [&](auto r, auto o) { return at(dy, r * out + o); },
                       .b = [&](auto o, auto i) { return at(w, o * in + i); }}(dx);
  }
}

TEST_P(WeightProduct, IsTheDefinitionInBothDirections) {
  for (std::int64_t out : {1, 17, 32, 65})
    for (std::int64_t in : {3, 33, 64}) {
      const Tensor master = test::random({out, in}, 1);
      const Weight weight = make_weight(master, GetParam());
      for (std::int64_t rows : {0, 1, 17, 65}) expect_products(weight, master, GetParam(), rows);
    }
}

TEST_P(WeightProduct, FollowsItsMasterAfterRefresh) {
  Tensor master = test::random({40, 50}, 1);
  Weight weight = make_weight(master, GetParam());
  const Tensor other = test::random({40, 50}, 7);
  kernels(Device{}).copy(master, other);
  refresh(weight, master);
  expect_products(weight, other, GetParam(), 9);
}

TEST(WeightProduct, HoldsBf16OnceForEachDirectionAndNoPlainCopy) {
  const Weight weight = make_weight(test::random({64, 96}, 1), DType::bf16);
  EXPECT_FALSE(weight.plain);
  EXPECT_EQ(weight.forward.numel(), 64 * 96 * 2);
  EXPECT_EQ(weight.backward.numel(), 64 * 96 * 2);
}

}  // namespace
}  // namespace switchyard
