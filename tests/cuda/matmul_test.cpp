#include "cuda/both.h"
#include "product_check.h"

namespace switchyard::test {
namespace {

struct Sizes {
  std::int64_t m, n, k;
};
// A tile's worth, odd in every size, single rows and columns, nothing at all, a sum over nothing, and a sum long enough
// to be split.
constexpr Sizes kSizes[] = {{64, 32, 48}, {33, 7, 17}, {1, 9, 70}, {5, 1, 3},
                            {0, 4, 5},    {4, 0, 5},   {6, 5, 0},  {9, 10, 300}};
struct Types {
  DType in, out;
};
constexpr Types kTypes[] = {{DType::f32, DType::f32}, {DType::bf16, DType::bf16}, {DType::bf16, DType::f32}};

// Inputs are uniform in (-1, 1), so each device's sum of k products and what was there before is within
// (k + 2) 2^-24 (k + 1) of the truth; results that round to bf16 may round to neighbours, at most 2^-7 apart.
double tolerance(std::int64_t k, DType out) {
  return 2.0 * static_cast<double>((k + 2) * (k + 1)) * 0x1p-24 + (out == DType::bf16 ? 0x1p-7 : 0);
}

Shape stored(std::int64_t rows, std::int64_t cols, Trans t) {
  return t == Trans::yes ? Shape{cols, rows} : Shape{rows, cols};
}

// c, checked beside the CPU's and, far more tightly, beside the definition.
void expect_product(Sizes s, Types types, Trans ta, Trans tb, Into into) {
  SCOPED_TRACE(testing::Message() << s.m << " x " << s.n << " x " << s.k << ", " << types.in << " to " << types.out
                                  << (ta == Trans::yes ? " a^T" : " a") << (tb == Trans::yes ? " b^T" : " b"));
  const Both a = random_both(stored(s.m, s.k, ta), types.in, 1), b = random_both(stored(s.k, s.n, tb), types.in, 2);
  // Of what is overwritten nothing may be read: NaN times zero is NaN.
  Both c = into == Into::accumulate ? random_both({s.m, s.n}, types.out, 3) : unwritten({s.m, s.n}, types.out);
  const Tensor before = to_device(c.gpu, Device{});
  compare({{"c", &c, tolerance(s.k, types.out)}},
          [&](const Kernels& k, auto on) { k.matmul(on(c), on(a), on(b), ta, tb, into); });
  ProductCheck check{.m = s.m,
                     .n = s.n,
                     .k = s.k,
                     .a = [&](auto i, auto k) { return at(a.cpu, ta == Trans::yes ? k * s.m + i : i * s.k + k); },
                     .b = [&](auto k, auto j) { return at(b.cpu, tb == Trans::yes ? j * s.k + k : k * s.n + j); }};
  if (into == Into::accumulate) check.before = [&](auto i, auto j) { return at(before, i * s.n + j); };
  check(to_device(c.gpu, Device{}));
}

TEST(CudaMatmul, IsTheDefinition) {
  for (Sizes s : kSizes)
    for (Types types : kTypes)
      for (Trans ta : {Trans::no, Trans::yes})
        for (Trans tb : {Trans::no, Trans::yes}) expect_product(s, types, ta, tb, Into::overwrite);
}

TEST(CudaMatmul, AddsToWhatIsThere) {
  for (Sizes s : kSizes)
    for (Types types : kTypes) {
      expect_product(s, types, Trans::no, Trans::no, Into::accumulate);
      expect_product(s, types, Trans::yes, Trans::no, Into::accumulate);
    }
}

// Row ranges begin at any element: first after an aligned product of that shape, whose kernel may not be right for
// them.
TEST(CudaMatmul, TakesRowsThatBeginAnywhere) {
  constexpr std::int64_t kRows = 12, kMost = 8;
  for (Types types : kTypes)
    for (std::int64_t width : {7, 12}) {
      const Both a = random_both({kRows, width}, types.in, 1), b = random_both({width + 3, width}, types.in, 2);
      for (std::int64_t first_a : {0, 1, 2, 3})
        for (std::int64_t first_b : {0, 1, 3}) {
          Both c = unwritten({kRows, width}, types.out);
          compare({{"c", &c, tolerance(width, types.out)}}, [&](const Kernels& k, auto on) {
            k.zero(on(c));
            Tensor rows = on(c).rows(first_b, first_b + kMost);
            k.matmul(rows, on(a).rows(first_a, first_a + kMost), on(b).rows(first_b, first_b + width), Trans::no,
                     Trans::yes, Into::overwrite);
          });
        }
    }
}

}  // namespace
}  // namespace switchyard::test
