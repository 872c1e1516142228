#include "cuda/both.h"

namespace switchyard::test {
namespace {

constexpr DType kFloats[] = {DType::f32, DType::bf16};

// The logits' differences from the largest (up to 20) round to 2^-20 before the exponential, on both sides alike; the
// exponentials differ by a unit or two in the last place, the sums of n of them by up to sqrt(n) roundings.
double rounding(std::int64_t words) { return (16 + std::sqrt(double(words))) * 0x1p-24; }
// Gradients may then round to neighbouring values of bf16, up to 2^-7 apart.
double tolerance(DType dtype, std::int64_t words) { return rounding(words) + (dtype == DType::bf16 ? 0x1p-7 : 0); }

// Targets at both ends and between, one of five without.
Both targets(std::int64_t rows, std::int64_t words) {
  std::vector<std::int32_t> target;
  for (std::int64_t r = 0; r < rows; ++r)
    target.push_back(r % 5 == 3 ? -1 : std::int32_t(r % 5 == 0 ? words - 1 : r % 5 == 1 ? 0 : words * (r % 7) / 7));
  return both(ints({rows}, target));
}

// Scaled so that the gradients of many words have size 1.
void check(DType dtype, DType gradient, std::int64_t rows, std::int64_t words) {
  const auto scale = float(words);
  const Both logits = random_both({rows, words}, dtype, 1, 10), target = targets(rows, words);
  Both loss = unwritten({rows}, DType::f32), dlogits = unwritten({rows, words}, gradient);
  compare({{"loss", &loss, rounding(words)}, {"dlogits", &dlogits, tolerance(gradient, words)}},
          [&](const Kernels& k, auto on) { k.cross_entropy(on(loss), on(dlogits), on(logits), on(target), scale); });
}

TEST(CudaCrossEntropy, EveryTypeAndWidth) {
  for (DType dtype : kFloats)
    for (DType gradient : kFloats)
      for (std::int64_t words : {1, 2, 7, 64, 129, 1000, 1003}) check(dtype, gradient, 6, words);
}

TEST(CudaCrossEntropy, FewRows) {
  for (std::int64_t rows : {0, 1, 2}) check(DType::f32, DType::bf16, rows, 50);
}

// More than the 1024 threads of a block take at once: 16384 words in packs, 4096 one by one.
TEST(CudaCrossEntropy, ManyWords) {
  check(DType::f32, DType::bf16, 2, 20'003);
  check(DType::f32, DType::f32, 2, 20'004);
  check(DType::bf16, DType::bf16, 2, 35'003);
  check(DType::bf16, DType::f32, 2, 20'001);
}

TEST(CudaCrossEntropy, MoreThan100000Words) { check(DType::f32, DType::bf16, 2, 128'257); }

// Rows of logits and of gradients begin at different places between two addresses that 16 bytes may have, so that they
// have no packs in common.
TEST(CudaCrossEntropy, RowsThatStartBetweenSixteenBytes) {
  const std::int64_t words = 4101;
  const Both logits = random_both({6, words}, DType::f32, 1, 10), target = targets(5, words);
  for (DType gradient : kFloats) {
    Both loss = unwritten({5}, DType::f32), dlogits = unwritten({7, words}, gradient);
    compare({{"loss", &loss, rounding(words)}, {"dlogits", &dlogits, tolerance(gradient, words)}},
            [&](const Kernels& k, auto on) {
              Tensor dlogits_rows = on(dlogits).rows(2, 7);
              k.cross_entropy(on(loss), dlogits_rows, on(logits).rows(1, 6), on(target), float(words));
            });
  }
}

TEST(CudaCrossEntropy, WithoutGradient) {
  for (DType dtype : kFloats) {
    const Both logits = random_both({4, 333}, dtype, 1, 10), target = targets(4, 333);
    Both loss = unwritten({4}, DType::f32), none;
    compare({{"loss", &loss, rounding(333)}},
            [&](const Kernels& k, auto on) { k.cross_entropy(on(loss), on(none), on(logits), on(target), 1); });
  }
}

// Words cut over three ranks, unevenly, in both steps; rank 0 has the targets of rows 1 and 6.
TEST(CudaCrossEntropy, OfWordsCutOverRanks) {
  for (DType gradient : kFloats)
    for (std::int64_t words : {9, 1003, 20'003}) {
      const Both logits = random_both({7, words}, DType::f32, 1, 10);
      const Both target = both(ints({7}, {-1, 0, std::int32_t(words - 1), -1, -1, -1, 3}));
      Both parts = random_both({3, 7, 4}, DType::f32, 2, 3), mine = unwritten({7, 4}, DType::f32);
      for (Tensor* t : {&parts.cpu, &parts.gpu}) {  // what two other ranks say: positive sums, the target of row 3
        Tensor host = to_device(*t, Device{});
        for (std::int64_t i = 0; i < 21; ++i) {
          float* part = host.data<float>() + i * 4;
          part[1] = 1 + std::abs(part[1]);
          part[3] = i == 7 + 3;
          if (part[3] == 0) part[2] = 0;
        }
        kernels(t->device()).copy(*t, host);
      }
      Both loss = unwritten({7}, DType::f32), dlogits = unwritten({7, words}, gradient), none;
      const auto run = [&](const Kernels& k, auto on, Both& gradients) {
        k.cross_entropy_part(on(mine), on(logits), on(target));
        Tensor first = on(parts).rows(0, 1).view({7, 4});
        k.copy(first, on(mine));
        k.cross_entropy_whole(on(loss), on(gradients), on(logits), on(target), on(parts), float(words));
      };
      compare({{"part", &mine, rounding(words) * std::sqrt(double(words))},
               {"loss", &loss, 4 * rounding(words)},
               {"dlogits", &dlogits, 4 * tolerance(gradient, words)}},
              [&](const Kernels& k, auto on) { run(k, on, dlogits); });
      compare({{"loss", &loss, 4 * rounding(words)}}, [&](const Kernels& k, auto on) { run(k, on, none); });
    }
}

TEST(CudaCrossEntropy, InPlaceWhereTheTypesAgree) {
  for (DType dtype : kFloats)
    for (std::int64_t words : {37, 5000}) {
      Both logits = random_both({4, words}, dtype, 1, 10);
      const Both target = targets(4, words);
      Both loss = unwritten({4}, DType::f32);
      compare({{"loss", &loss, rounding(words)}, {"logits", &logits, tolerance(dtype, words)}},
              [&](const Kernels& k, auto on) { k.cross_entropy(on(loss), on(logits), on(logits), on(target), 1); });
    }
}

// A loss of thousands, one near zero that the log-sum-exp itself would round off, words that cannot be, and a NaN.
TEST(CudaCrossEntropy, ExtremeLogits) {
  constexpr float inf = INFINITY;
  const Both logits = both(floats({5, 3}, {5000, 0, -5000,       // far apart
                                           -5000, -5000, -6000,  // far below zero
                                           10000, 9988, 9989,    // near 0 beside 10000
                                           -inf, 1, -inf,        // masked words
                                           0, std::nanf(""), 1}));
  const Both target = both(ints({5}, {1, 2, 0, 1, 0}));
  Both loss = unwritten({5}, DType::f32), dlogits = unwritten({5, 3}, DType::f32);
  compare({{"loss", &loss, rounding(3)}, {"dlogits", &dlogits, rounding(3)}},
          [&](const Kernels& k, auto on) { k.cross_entropy(on(loss), on(dlogits), on(logits), on(target), 1); });
  EXPECT_NEAR(at(to_device(loss.gpu, Device{}), 2), std::exp(-12.0) + std::exp(-11.0), 0x1p-23);  // of 1 + it
}

// Summed in double on both sides and rounded once: the orders differ in the last bits of a double only, which may turn
// one rounding to f32.
TEST(CudaSum, OfAnyLength) {
  for (std::int64_t n : {0, 1, 31, 1025, 16'384, 16'385, 40'003}) {
    const Both x = random_both({n}, DType::f32, 1, 100);
    for (Into into : {Into::overwrite, Into::accumulate}) {
      Both y = both(floats({1}, {0.5f}));
      compare({{"y", &y, 0x1p-23}}, [&](const Kernels& k, auto on) { k.sum(on(y), on(x), into); });
    }
  }
}

}  // namespace
}  // namespace switchyard::test
