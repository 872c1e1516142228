#include <numeric>

#include "cuda/both.h"

namespace switchyard::test {
namespace {

constexpr DType kFloats[] = {DType::f32, DType::bf16};

// As for matmul: (k + 2) 2^-24 of sum |x w| < k (and what was there before, below 1) on each device, and neighbours
// where results round to bf16.
double tolerance(std::int64_t k, DType out) {
  return 2.0 * static_cast<double>((k + 2) * (k + 1)) * 0x1p-24 + (out == DType::bf16 ? 0x1p-7 : 0);
}

struct Case {
  std::vector<std::int32_t> loads;
  std::int64_t spare = 0;  // rows after the last expert's, which belong to nobody
};

struct BothWeights {
  Weight cpu, gpu;
};

// All rows of one case on both devices, the offsets given as loads say, or only rows_each.
void expect_agreement_of(const Case& c, std::int64_t out, std::int64_t in, DType dtype, std::int64_t rows_each) {
  SCOPED_TRACE(testing::Message() << testing::PrintToString(c.loads) << ", " << out << " x " << in << ' ' << dtype
                                  << ", rows_each " << rows_each);
  const auto experts = static_cast<std::int64_t>(c.loads.size());
  std::vector<std::int32_t> begin(c.loads.size() + 1, 0);
  std::partial_sum(c.loads.begin(), c.loads.end(), begin.begin() + 1);
  const std::int64_t rows = begin.back() + c.spare, longest = *std::ranges::max_element(c.loads);
  const Both offsets = rows_each > 0 ? Both{} : both(ints({experts + 1}, begin));
  const Both master = random_both({experts, out, in}, DType::f32, 1);
  const BothWeights w{make_weight(master.cpu, dtype), make_weight(master.gpu, dtype)};
  const Both x = random_both({rows, in}, dtype, 2), dy = random_both({rows, out}, dtype, 3);
  for (DType result : {dtype, DType::f32}) {
    // Rows of nobody are not written: what is there before stays.
    Both y = random_both({rows, out}, result, 5), dx = random_both({rows, in}, result, 6);
    compare({{"y", &y, tolerance(in, result)}, {"dx", &dx, tolerance(out, result)}}, [&](const Kernels& k, auto on) {
      k.grouped_matmul(on(y), on(x), on(w), on(offsets), rows_each, Trans::yes);
      k.grouped_matmul(on(dx), on(dy), on(w), offsets.cpu, rows_each, Trans::no);  // offsets in host memory
    });
  }
  Both dw = unwritten({experts, out, in}, DType::f32), sum = random_both({experts, out, in}, DType::f32, 4);
  compare({{"dw", &dw, tolerance(longest, DType::f32)}, {"sum", &sum, tolerance(longest, DType::f32)}},
          [&](const Kernels& k, auto on) {
            k.grouped_matmul_dw(on(dw), on(dy), on(x), on(offsets), rows_each, Into::overwrite);
            k.grouped_matmul_dw(on(sum), on(dy), on(x), on(offsets), rows_each, Into::accumulate);
          });
}

// Uneven and empty experts, more of them than there are streams, one alone, one that takes everything, no rows at all,
// and rows after the last expert's. Odd widths begin an expert's rows between 16 bytes.
const Case kCases[] = {
    {{1, 0, 33, 3, 70, 0, 9}, 0}, {{13}, 2}, {{0, 40, 0}, 0}, {{0, 0, 0}, 0}, {{5, 0, 2}, 6}, {{0, 0}, 3}};

TEST(CudaGrouped, MultipliesEachExpertsRows) {
  for (const Case& c : kCases)
    for (DType dtype : kFloats) {
      expect_agreement_of(c, 24, 16, dtype, 0);
      expect_agreement_of(c, 19, 7, dtype, 0);
    }
}

// Loads that come one after the other share kernels by size; each must be right whatever came before it.
TEST(CudaGrouped, TakesEveryLoad) {
  for (DType dtype : kFloats)
    for (std::int32_t load = 1; load < 40; load += 3)
      expect_agreement_of({{load, 2 * load, 41 - load}}, 8, 9, dtype, 0);
}

TEST(CudaGrouped, TakesEqualLoadsWithoutOffsets) {
  for (DType dtype : kFloats)
    for (std::int32_t each : {1, 8, 21}) {
      expect_agreement_of({{each, each, each}}, 24, 16, dtype, each);
      expect_agreement_of({{each, each, each}}, 19, 7, dtype, each);
    }
}

// No rows at all need no offsets either.
TEST(CudaGrouped, TakesNoRowsWithoutOffsets) {
  const Both x = random_both({0, 5}, DType::bf16, 1), dy = random_both({0, 4}, DType::bf16, 2);
  Both dw = unwritten({3, 4, 5}, DType::f32);
  compare({{"dw", &dw, 0}},
          [&](const Kernels& k, auto on) { k.grouped_matmul_dw(on(dw), on(dy), on(x), Tensor(), 0, Into::overwrite); });
}

// One batch of products and one product an expert are the same sums, in another order at most.
TEST(CudaGrouped, GivesTheSameWithAndWithoutOffsets) {
  constexpr std::int64_t kExperts = 4, kEach = 12, kOut = 10, kIn = 20;
  const Tensor master = to_device(random({kExperts, kOut, kIn}, 1), kGpu);
  const Tensor offsets = to_device(ints({kExperts + 1}, {0, 12, 24, 36, 48}), kGpu);
  for (DType dtype : kFloats) {
    const Weight w = make_weight(master, dtype);
    const Both x = random_both({kExperts * kEach, kIn}, dtype, 2);
    Tensor with = Tensor::empty({kExperts * kEach, kOut}, DType::f32, kGpu), without = empty_like(with);
    kernels(kGpu).grouped_matmul(with, x.gpu, w, offsets, 0, Trans::yes);
    kernels(kGpu).grouped_matmul(without, x.gpu, w, Tensor(), kEach, Trans::yes);
    expect_agreement(without, to_device(with, Device{}), tolerance(kIn, DType::f32), "y");
  }
}

}  // namespace
}  // namespace switchyard::test
