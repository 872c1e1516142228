#include <gtest/gtest.h>

#include <tuple>

#include "kernel_check.h"

namespace switchyard {
namespace {

using test::at, test::expect_values, test::floats, test::poisoned, test::random_rows, test::rounding;

const Kernels& k = kernels(Device{});

// Sizes around a vector, a piece of work of a thread, and none.
const std::int64_t kSizes[] = {0, 1, 15, 33, 16'384, 70'001};

class Elementwise : public testing::TestWithParam<std::tuple<DType, DType>> {};
INSTANTIATE_TEST_SUITE_P(Types, Elementwise,
                         testing::Combine(testing::Values(DType::f32, DType::bf16),
                                          testing::Values(DType::f32, DType::bf16)));

TEST_P(Elementwise, CopyConverts) {
  const auto [to, from] = GetParam();
  for (auto n : kSizes) {
    const Tensor x = random_rows({n}, from, 1, 3);
    Tensor y = poisoned({n}, to);
    k.copy(y, x);
    for (std::int64_t i = 0; i < n; ++i) {
      const double want = to == DType::bf16 ? static_cast<float>(bf16(static_cast<float>(at(x, i)))) : at(x, i);
      ASSERT_EQ(at(y, i), want) << "at " << i;
    }
  }
}

TEST_P(Elementwise, AddSumsInF32) {
  const auto [to, from] = GetParam();
  for (auto n : kSizes) {
    const Tensor x = random_rows({n}, from, 1), before = random_rows({n}, to, 2);
    Tensor y = poisoned({n}, to);
    k.copy(y, before);
    k.add(y, x);
    expect_values(
        y, [&](auto i) { return at(before, i) + at(x, i); }, rounding(to, 1), 1e-6);
  }
}

TEST(Copy, CarriesEveryTypeUnchanged) {
  for (DType dtype : {DType::f32, DType::bf16, DType::i32, DType::i64, DType::u16, DType::u8}) {
    Tensor x = Tensor::empty({40'001}, dtype, Device{}), y = poisoned({40'001}, dtype);
    for (std::size_t i = 0; i < x.size_in_bytes(); ++i) x.bytes()[i] = static_cast<std::byte>(i * 7);
    k.copy(y, x);
    test::expect_same_bits(y, x);
  }
}

TEST(Scale, MultipliesByAScalarOnTheDevice) {
  for (DType dtype : {DType::f32, DType::bf16})
    for (auto n : kSizes) {
      const Tensor x = random_rows({n}, dtype, 1);
      Tensor y = poisoned({n}, dtype);
      k.copy(y, x);
      k.scale(y, floats({1}, {-0.37f}));
      expect_values(
          y, [&](auto i) { return at(x, i) * -0.37f; }, rounding(dtype, 1), 1e-6);
    }
}

TEST(Add, LeavesNeighboursAlone) {
  Tensor all = floats({4}, {1, 2, 3, 4}), middle = all.rows(1, 3);
  k.add(middle, floats({2}, {10, 20}));
  test::expect_near(all, floats({4}, {1, 12, 23, 4}), 0);
}

}  // namespace
}  // namespace switchyard
