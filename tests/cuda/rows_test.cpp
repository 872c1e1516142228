#include "cuda/both.h"

namespace switchyard::test {
namespace {

constexpr DType kFloats[] = {DType::f32, DType::bf16};

// n indices below `rows`, one in five of them -1.
Both some_index(std::int64_t n, std::int64_t rows, unsigned seed) {
  std::vector<std::int32_t> index;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto bits = philox({seed, 1}, static_cast<std::uint64_t>(i));
    index.push_back(bits[0] % 5 ? static_cast<std::int32_t>(bits[1] % static_cast<std::uint32_t>(rows)) : -1);
  }
  return both(ints({n}, index));
}

// Slots of T x K choices in N rows, each row taken at most once, one choice in four dropped.
Both some_slots(std::int64_t tokens, std::int64_t choices, std::int64_t rows, unsigned seed) {
  std::vector<std::int32_t> order(static_cast<std::size_t>(rows)), slots;
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int32_t>(i);
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[philox({seed, 2}, i)[0] % i]);
  std::size_t next = 0;
  for (std::int64_t i = 0; i < tokens * choices; ++i) {
    const bool dropped = philox({seed, 3}, static_cast<std::uint64_t>(i))[0] % 4 == 0 || next == order.size();
    slots.push_back(dropped ? -1 : order[next++]);
  }
  return both(ints({tokens, choices}, slots));
}

void expect_gather(std::int64_t n, std::int64_t rows, std::int64_t dim, DType from, DType to) {
  const Both x = random_both({rows, dim}, from, 1), index = some_index(n, rows, 2);
  Both y = unwritten({n, dim}, to);
  compare({{"y", &y, 0}}, [&](const Kernels& k, auto on) { k.gather_rows(on(y), on(x), on(index)); });
}

// One block has 8 rows at a time, one stride of the emulated GPU 128. Widths: single elements, one pack, packs for a
// part of a warp, and more than a warp's lanes take at once.
TEST(CudaRows, Gather) {
  for (DType from : kFloats)
    for (DType to : kFloats)
      for (auto [n, rows, dim] :
           {std::array<std::int64_t, 3>{0, 3, 5}, {1, 1, 1}, {9, 4, 17}, {300, 40, 8}, {30, 7, 264}, {20, 5, 521}})
        expect_gather(n, rows, dim, from, to);
}

TEST(CudaRows, GatherRowsThatStartBetweenSixteenBytes) {
  for (DType dtype : kFloats) {
    const Both x = random_both({8 * 9 + 1}, dtype, 1), index = both(ints({3}, {4, -1, 0}));
    Both y = unwritten({3, 8}, dtype);
    compare({{"y", &y, 0}}, [&](const Kernels& k, auto on) {
      k.gather_rows(on(y), on(x).rows(1, 8 * 9 + 1).view({9, 8}), on(index));
    });
  }
}

// f32 additions in the order of N on both sides: the same bits.
void expect_scatter(const Both& index, std::int64_t rows, std::int64_t dim, DType dtype) {
  const Both x = random_both({index.cpu.dim(0), dim}, dtype, 1);
  Both y = random_both({rows, dim}, DType::f32, 3);
  compare({{"y", &y, 0}}, [&](const Kernels& k, auto on) { k.scatter_add_rows(on(y), on(x), on(index)); });
}

TEST(CudaRows, ScatterAdd) {
  for (DType dtype : kFloats)
    for (auto [n, rows, dim] :
         {std::array<std::int64_t, 3>{0, 3, 5}, {1, 1, 1}, {50, 4, 17}, {300, 30, 63}, {90, 7, 264}})
      expect_scatter(some_index(n, rows, 2), rows, dim, dtype);
}

// Two passes of the sort, and several chunks of N.
TEST(CudaRows, ScatterAddToALargeVocabulary) { expect_scatter(some_index(2500, 50'000, 2), 50'000, 2, DType::bf16); }

// Three passes of the sort.
TEST(CudaRows, ScatterAddSortsByEveryDigit) {
  std::vector<std::int32_t> index;
  for (std::int32_t i = 0; i < 40; ++i) index.push_back((i % 3) << 19 | (i % 5) << 9 | i % 2);
  expect_scatter(both(ints({40}, index)), (3 << 19), 1, DType::f32);
}

// Sums longer than what a warp loads at once, for one row and for two that alternate; and no row at all.
TEST(CudaRows, ScatterAddManyToOne) {
  for (DType dtype : kFloats)
    for (std::int32_t n : {31, 32, 33, 64, 1100}) {
      expect_scatter(both(ints({n}, std::vector<std::int32_t>(std::size_t(n), 2))), 5, 12, dtype);
      std::vector<std::int32_t> two;
      for (std::int32_t i = 0; i < n; ++i) two.push_back(i % 2 * 3);
      expect_scatter(both(ints({n}, two)), 4, 12, dtype);
    }
  expect_scatter(both(ints({3}, {-1, -1, -1})), 4, 12, DType::f32);
}

struct Case {
  std::int64_t tokens, choices, rows, dim;
};
constexpr Case kCases[] = {{0, 2, 4, 8},    {1, 1, 1, 1},     {6, 2, 12, 17},   {40, 8, 320, 33},
                           {6, 3, 12, 129}, {150, 2, 300, 8}, {70, 4, 200, 64}, {10, 2, 30, 264}};

// Both sides add K products, rounded or fused, in the order of k: K times a rounding of 2^-24 of terms below 1 (the
// weights and rows), and one of bf16, whose neighbours are 2^-8 apart, where that falls the other way.
double sums_tolerance(DType dtype, std::int64_t choices) {
  return double(choices) * 0x1p-24 + (dtype == DType::bf16 ? 0x1p-7 : 0);
}

TEST(CudaRows, Combine) {
  for (DType dtype : kFloats)
    for (bool weighted : {true, false})
      for (auto [tokens, choices, rows, dim] : kCases) {
        const Both x = random_both({rows, dim}, dtype, 1), slot = some_slots(tokens, choices, rows, 3);
        const Both weight = weighted ? random_both({tokens, choices}, DType::f32, 4) : Both{};
        Both y = unwritten({tokens, dim}, dtype);
        compare({{"y", &y, sums_tolerance(dtype, choices)}},
                [&](const Kernels& k, auto on) { k.combine_rows(on(y), on(x), on(slot), on(weight)); });
      }
}

// dx is one product, rounded once: the same bits. dweight is a sum of D products below 1 in another order.
TEST(CudaRows, CombineBackward) {
  for (DType dtype : kFloats)
    for (bool weighted : {true, false})
      for (auto [tokens, choices, rows, dim] : kCases) {
        const Both x = random_both({rows, dim}, dtype, 1), dy = random_both({tokens, dim}, dtype, 2);
        const Both weight = weighted ? random_both({tokens, choices}, DType::f32, 4) : Both{};
        const Both slot = some_slots(tokens, choices, rows, 3);
        Both dx = unwritten({rows, dim}, dtype), dweight = unwritten({tokens, choices}, DType::f32);
        compare({{"dx", &dx, 0}, {"dweight", &dweight, double(dim) * 0x1p-24}}, [&](const Kernels& k, auto on) {
          k.combine_rows_backward(on(dx), on(dweight), on(dy), on(x), on(slot), on(weight));
        });
      }
}

TEST(CudaRows, CombineBackwardOfConstantWeightsReadsNoRows) {
  const Both slot = both(ints({2, 1}, {2, 0})), dy = random_both({2, 3}, DType::f32, 1);
  const Both weight = both(floats({2, 1}, {2, 3}));
  Both dx = unwritten({3, 3}, DType::f32);
  compare({{"dx", &dx, 0}}, [&](const Kernels& k, auto on) {
    Tensor none;
    k.combine_rows_backward(on(dx), none, on(dy), {}, on(slot), on(weight));
  });
}

TEST(CudaRows, ScatterIds) {
  for (const std::int64_t tokens : {0, 1, 700})
    for (const std::int64_t width : {1, 3}) {
      std::vector<std::int32_t> slots, names;
      for (std::int64_t i = 0; i < 3 * tokens; ++i) slots.push_back(i % 4 == 1 ? -1 : std::int32_t(3 * tokens - 1 - i));
      for (std::int64_t i = 0; i < width * tokens; ++i) names.push_back(std::int32_t(i * i));
      const Both slot = both(ints({tokens, 3}, slots)), name = both(ints({tokens, width}, names));
      Both id = unwritten({3 * tokens}, DType::i32);
      compare({{"id", &id, 0}}, [&](const Kernels& k, auto on) { k.scatter_ids(on(id), on(name), on(slot)); });
    }
}

}  // namespace
}  // namespace switchyard::test
