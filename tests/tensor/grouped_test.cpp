#include <cstring>

#include "product_check.h"
#include "tensor/kernels.h"

namespace switchyard {
namespace {

using test::at;
using test::random_rows;

// Five experts with uneven loads: one row, none, many, none at the end.
constexpr std::int64_t kExperts = 5, kOut = 45, kIn = 38, kRows = 88;
const std::vector<std::int32_t> kOffsets{0, 1, 1, 70, 88, 88};

class Grouped : public testing::TestWithParam<DType> {};

INSTANTIATE_TEST_SUITE_P(Types, Grouped, testing::Values(DType::f32, DType::bf16),
                         [](const auto& info) { return std::string(name_of(info.param)); });

TEST_P(Grouped, MultipliesEachExpertsRowsByItsMatrix) {
  const DType dtype = GetParam();
  const Tensor master = test::random({kExperts, kOut, kIn}, 1), w = cast(master, dtype);
  const Weight weight = make_weight(master, dtype);
  const Tensor offsets = test::ints({kExperts + 1}, kOffsets);
  const Tensor x = random_rows({kRows, kIn}, dtype, 2), dy = random_rows({kRows, kOut}, dtype, 3);
  Tensor y = Tensor::empty({kRows, kOut}, dtype, Device{}), dx = Tensor::empty({kRows, kIn}, dtype, Device{});
  kernels(Device{}).grouped_matmul(y, x, weight, offsets, 0, Trans::yes);
  kernels(Device{}).grouped_matmul(dx, dy, weight, offsets, 0, Trans::no);

  for (std::size_t e = 0; e < kExperts; ++e) {
    const std::int64_t first = kOffsets[e], rows = kOffsets[e + 1] - first;
    const auto element = [&](auto o, auto i) { return at(w, (static_cast<std::int64_t>(e) * kOut + o) * kIn + i); };
    test::ProductCheck{.m = rows,
                       .n = kOut,
                       .k = kIn,
                       .a = [&](auto r, auto i) { return at(x, (first + r) * kIn + i); },
                       .b = [&](auto i, auto o) { return element(o, i); }}(y, first);
    test::ProductCheck{.m = rows,
                       .n = kIn,
                       .k = kOut,
                       .a = [&](auto r, auto o) { return at(dy, (first + r) * kOut + o); },
                       .b = [&](auto o, auto i) { return element(o, i); }}(dx, first);
  }
}

TEST_P(Grouped, SumsEachExpertsWeightGradientOverItsRows) {
  const Tensor offsets = test::ints({kExperts + 1}, kOffsets);
  const Tensor x = random_rows({kRows, kIn}, GetParam(), 2), dy = random_rows({kRows, kOut}, GetParam(), 3);
  for (Into into : {Into::overwrite, Into::accumulate}) {
    const Tensor before = test::random({kExperts, kOut, kIn}, 4);
    Tensor dw = test::random({kExperts, kOut, kIn}, 4);
    kernels(Device{}).grouped_matmul_dw(dw, dy, x, offsets, 0, into);
    for (std::size_t e = 0; e < kExperts; ++e) {
      const std::int64_t first = kOffsets[e], row = static_cast<std::int64_t>(e) * kOut;
      test::ProductCheck check{.m = kOut,
                               .n = kIn,
                               .k = kOffsets[e + 1] - first,
                               .a = [&](auto o, auto r) { return at(dy, (first + r) * kOut + o); },
                               .b = [&](auto r, auto i) { return at(x, (first + r) * kIn + i); }};
      if (into == Into::accumulate) check.before = [&](auto o, auto i) { return at(before, (row + o) * kIn + i); };
      check(dw, row);
    }
  }
}

// Saying how many rows each expert has gives the same bits as offsets that say it, and needs none.
TEST_P(Grouped, TakesEqualLoadsWithoutOffsets) {
  constexpr std::int64_t kEach = 17;
  const DType dtype = GetParam();
  const Weight weight = make_weight(test::random({kExperts, kOut, kIn}, 1), dtype);
  const Tensor offsets = test::ints({kExperts + 1}, {0, 17, 34, 51, 68, 85});
  const Tensor x = random_rows({kExperts * kEach, kIn}, dtype, 2), dy = random_rows({kExperts * kEach, kOut}, dtype, 3);
  const auto expect_same = [&](Shape shape, DType result, const auto& row) {
    Tensor with = Tensor::zeros(shape, result, Device{}), without = Tensor::zeros(shape, result, Device{});
    row(with, offsets, 0);
    row(without, Tensor(), kEach);
    EXPECT_EQ(std::memcmp(with.bytes(), without.bytes(), with.size_in_bytes()), 0);
    EXPECT_NE(at(with, with.numel() - 1), 0);
  };
  const Kernels& k = kernels(Device{});
  expect_same({kExperts * kEach, kOut}, dtype, [&](Tensor& y, const Tensor& begin, std::int64_t each) {
    k.grouped_matmul(y, x, weight, begin, each, Trans::yes);
  });
  expect_same({kExperts, kOut, kIn}, DType::f32, [&](Tensor& dw, const Tensor& begin, std::int64_t each) {
    k.grouped_matmul_dw(dw, dy, x, begin, each, Into::overwrite);
  });
}

TEST_P(Grouped, TakesNoRowsAtAll) {
  const Weight weight = make_weight(test::random({2, kOut, kIn}, 1), GetParam());
  const Tensor offsets = test::ints({3}, {0, 0, 0});
  const Tensor x = Tensor::empty({0, kIn}, GetParam(), Device{}), dy = Tensor::empty({0, kOut}, GetParam(), Device{});
  Tensor y = Tensor::empty({0, kOut}, GetParam(), Device{}), dw = test::random({2, kOut, kIn}, 1);
  kernels(Device{}).grouped_matmul(y, x, weight, offsets, 0, Trans::yes);
  kernels(Device{}).grouped_matmul_dw(dw, dy, x, offsets, 0, Into::overwrite);
  for (std::int64_t i = 0; i < dw.numel(); ++i) ASSERT_EQ(at(dw, i), 0);
}

}  // namespace
}  // namespace switchyard
