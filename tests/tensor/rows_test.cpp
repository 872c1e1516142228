#include <gtest/gtest.h>

#include <tuple>

#include "kernel_check.h"

namespace switchyard {
namespace {

using test::at, test::expect_values, test::ints, test::poisoned, test::random, test::random_rows, test::rounding;

const Kernels& k = kernels(Device{});

// n indices below `rows`, one in five of them -1.
Tensor some_index(std::int64_t n, std::int64_t rows, unsigned seed) {
  Tensor index = Tensor::empty({n}, DType::i32, Device{});
  for (std::int64_t i = 0; i < n; ++i) {
    const auto bits = philox({seed, 1}, static_cast<std::uint64_t>(i));
    index.data<std::int32_t>()[i] =
        bits[0] % 5 ? static_cast<std::int32_t>(bits[1] % static_cast<std::uint32_t>(rows)) : -1;
  }
  return index;
}

// Slots of T x K choices in N rows, each row taken at most once, some choices dropped (-1).
Tensor some_slots(std::int64_t tokens, std::int64_t choices, std::int64_t rows, unsigned seed) {
  std::vector<std::int32_t> order(static_cast<std::size_t>(rows));
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int32_t>(i);
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[philox({seed, 2}, i)[0] % i]);
  std::vector<std::int32_t> slots;
  std::size_t next = 0;
  for (std::int64_t i = 0; i < tokens * choices; ++i) {
    const bool dropped = philox({seed, 3}, static_cast<std::uint64_t>(i))[0] % 4 == 0 || next == order.size();
    slots.push_back(dropped ? -1 : order[next++]);
  }
  return ints({tokens, choices}, slots);
}

std::int32_t index_at(const Tensor& t, std::int64_t i) { return t.data<std::int32_t>()[i]; }

class GatherRows : public testing::TestWithParam<std::tuple<DType, DType>> {};
INSTANTIATE_TEST_SUITE_P(Types, GatherRows,
                         testing::Combine(testing::Values(DType::f32, DType::bf16),
                                          testing::Values(DType::f32, DType::bf16)));

TEST_P(GatherRows, ReadsRowsAndZeros) {
  const auto [to, from] = GetParam();
  for (auto [n, rows, dim] : {std::tuple{0, 3, 5}, {1, 1, 1}, {9, 4, 17}, {300, 40, 130}}) {
    const Tensor x = random_rows({rows, dim}, from, 1), index = some_index(n, rows, 2);
    Tensor y = poisoned({n, dim}, to);
    k.gather_rows(y, x, index);
    for (std::int64_t i = 0; i < y.numel(); ++i) {
      const std::int32_t row = index_at(index, i / dim);
      const double want = row < 0 ? 0 : at(x, row * dim + i % dim);
      ASSERT_EQ(at(y, i), to == DType::bf16 ? static_cast<float>(bf16(static_cast<float>(want))) : want);
    }
  }
}

// In f32 and in the order of N, so the sum is exact to the bit.
TEST(ScatterAddRows, AddsInTheOrderOfTheRows) {
  for (DType dtype : {DType::f32, DType::bf16})
    for (auto [n, rows, dim] : {std::tuple{0, 3, 5}, {1, 1, 1}, {50, 4, 17}, {700, 30, 63}, {90, 7, 600}}) {
      const Tensor x = random_rows({n, dim}, dtype, 1), index = some_index(n, rows, 2), before = random({rows, dim}, 3);
      Tensor y = poisoned({rows, dim}, DType::f32), expected = poisoned({rows, dim}, DType::f32);
      k.copy(y, before);
      k.copy(expected, before);
      for (std::int64_t i = 0; i < x.numel(); ++i)
        if (const std::int32_t row = index_at(index, i / dim); row >= 0)
          expected.data<float>()[row * dim + i % dim] += static_cast<float>(at(x, i));
      k.scatter_add_rows(y, x, index);
      test::expect_same_bits(y, expected);
    }
}

struct Case {
  std::int64_t tokens, choices, rows, dim;
  DType dtype;
  bool weighted;
};
class CombineRows : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Shapes, CombineRows,
                         testing::Values(Case{0, 2, 4, 8, DType::f32, true}, Case{1, 1, 1, 1, DType::f32, true},
                                         Case{6, 2, 12, 17, DType::f32, true}, Case{40, 8, 320, 33, DType::f32, true},
                                         Case{6, 3, 12, 129, DType::f32, false},
                                         Case{70, 2, 140, 300, DType::bf16, true},
                                         Case{70, 4, 200, 64, DType::bf16, false}));

TEST_P(CombineRows, MatchesTheDefinition) {
  const auto [tokens, choices, rows, dim, dtype, weighted] = GetParam();
  const Tensor x = random_rows({rows, dim}, dtype, 1), dy = random_rows({tokens, dim}, dtype, 2);
  const Tensor slot = some_slots(tokens, choices, rows, 3);
  const Tensor weight = weighted ? random({tokens, choices}, 4) : Tensor{};
  const auto weight_at = [&, weighted = weighted](std::int64_t i) { return weighted ? at(weight, i) : 1; };

  Tensor y = poisoned({tokens, dim}, dtype);
  k.combine_rows(y, x, slot, weight);
  const auto sum = [&, choices = choices, dim = dim](std::int64_t i) {
    double sum = 0;
    for (std::int64_t c = i / dim * choices; c < (i / dim + 1) * choices; ++c)
      if (index_at(slot, c) >= 0) sum += weight_at(c) * at(x, index_at(slot, c) * dim + i % dim);
    return sum;
  };
  expect_values(y, sum, rounding(dtype, 16), dtype == DType::f32 ? 1 : 1e-2);

  Tensor dx = poisoned({rows, dim}, dtype), dweight = poisoned({tokens, choices}, DType::f32);
  k.combine_rows_backward(dx, dweight, dy, x, slot, weight);
  std::vector<double> expected(static_cast<std::size_t>(rows * dim));  // a row without a slot gets zeros
  for (std::int64_t c = 0; c < slot.numel(); ++c)
    for (std::int64_t d = 0; d < dim && index_at(slot, c) >= 0; ++d)
      expected[static_cast<std::size_t>(index_at(slot, c) * dim + d)] = weight_at(c) * at(dy, c / choices * dim + d);
  expect_values(
      dx, [&](auto i) { return expected[static_cast<std::size_t>(i)]; }, rounding(dtype, 2), 1e-6);

  const auto dot = [&, choices = choices, dim = dim](std::int64_t c) {
    double sum = 0;
    for (std::int64_t d = 0; d < dim && index_at(slot, c) >= 0; ++d)
      sum += at(x, index_at(slot, c) * dim + d) * at(dy, c / choices * dim + d);
    return sum;
  };
  expect_values(dweight, dot, rounding(DType::f32, static_cast<double>(dim)), 1);
}

TEST(CombineRowsKernel, NeedsNoRowsWhereNoWeightLearns) {
  const Tensor slot = ints({2, 1}, {1, 0}), dy = random({2, 3}, 1), weight = test::floats({2, 1}, {2, 3});
  Tensor dx = poisoned({2, 3}, DType::f32), none;
  k.combine_rows_backward(dx, none, dy, {}, slot, weight);
  expect_values(
      dx, [&](auto i) { return at(dy, (i + 3) % 6) * (i < 3 ? 3 : 2); }, rounding(DType::f32), 1);
}

TEST(ScatterIds, NamesRowsByTheirSlots) {
  Tensor id = test::poisoned({5}, DType::i32);
  const Tensor slot = test::ints({2, 2}, {4, -1, 0, 2});
  const auto ids = [&id] { return std::vector<std::int32_t>(id.data<std::int32_t>(), id.data<std::int32_t>() + 5); };
  kernels(Device{}).scatter_ids(id, test::ints({2, 2}, {7, 8, 9, 6}), slot);
  EXPECT_EQ(ids(), (std::vector<std::int32_t>{9, -1, 6, -1, 7}));
  kernels(Device{}).scatter_ids(id, test::ints({2, 1}, {7, 8}), slot);
  EXPECT_EQ(ids(), (std::vector<std::int32_t>{8, -1, 8, -1, 7}));
}

TEST(RowsKernels, SameBitsOnAnyNumberOfThreads) {
  const Tensor x = random_rows({600, 257}, DType::bf16, 1), dy = random_rows({300, 257}, DType::bf16, 2);
  const Tensor slot = some_slots(300, 2, 600, 3), weight = random({300, 2}, 4), index = some_index(600, 11, 5);
  test::expect_same_bits_on_any_threads([&] {
    Tensor y = empty_like(dy), dx = empty_like(x), dweight = empty_like(weight);
    Tensor sum = Tensor::zeros({11, 257}, DType::f32, Device{});
    k.combine_rows(y, x, slot, weight);
    k.combine_rows_backward(dx, dweight, dy, x, slot, weight);
    k.scatter_add_rows(sum, x, index);
    return std::vector{y, dx, dweight, sum};
  });
}

}  // namespace
}  // namespace switchyard
