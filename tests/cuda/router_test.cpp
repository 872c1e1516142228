#include "cuda/both.h"

namespace switchyard::test {
namespace {

// Tokens: none, one, part of a block, more than one stride of the emulated GPU's grid (16 blocks of 256 threads, which
// is 512 tokens for 32 lanes each). Experts: narrower than a warp, not a power of two, and several a lane.
struct Shape2 {
  std::int64_t tokens, experts;
};
constexpr Shape2 kShapes[] = {{0, 8}, {1, 1}, {5, 2}, {33, 7}, {70, 8}, {530, 33}, {9, 129}, {3, 300}};

Both logits(Shape2 s, float scale = 10) { return random_both({s.tokens, s.experts}, DType::f32, 1, scale); }

Both probabilities(Shape2 s) {
  const Both x = logits(s, 3);
  Tensor p = empty_like(x.cpu), lse = Tensor::empty({s.tokens}, DType::f32, Device{});
  kernels(Device{}).softmax(p, lse, x.cpu);
  return both(p);
}

// exp(x - max) is good to 2 units in the last place on either side, a sum of E <= 300 positive terms in two orders to
// log2(E) + 1 more each where lanes add pairwise, and p <= 1: 16 roundings of 2^-24 hold all of it. lse is log(sum)
// plus a maximum of at most 10, rounded once at that size.
TEST(CudaRouter, Softmax) {
  for (Shape2 s : kShapes) {
    const Both x = logits(s);
    Both p = unwritten({s.tokens, s.experts}, DType::f32), lse = unwritten({s.tokens}, DType::f32);
    compare({{"p", &p, 16 * 0x1p-24}, {"lse", &lse, 16 * 0x1p-24}},
            [&](const Kernels& k, auto on) { k.softmax(on(p), on(lse), on(x)); });
  }
}

TEST(CudaRouter, SoftmaxOfLogitsThatOverflowTheExponential) {
  const Both x = both(floats({2, 2}, {1000, 1000, -1000, -3000}));
  Both p = unwritten({2, 2}, DType::f32), lse = unwritten({2}, DType::f32);
  compare({{"p", &p, 0}, {"lse", &lse, 0x1p-24}}, [&](const Kernels& k, auto on) { k.softmax(on(p), on(lse), on(x)); });
}

// The mean sums E products p dp, in size at most 1 together, in another order: a few roundings of 2^-24, times p <= 1.
TEST(CudaRouter, SoftmaxBackward) {
  for (Shape2 s : kShapes) {
    const Both p = probabilities(s), dp = random_both({s.tokens, s.experts}, DType::f32, 2);
    Both dx = unwritten({s.tokens, s.experts}, DType::f32);
    compare({{"dlogits", &dx, 16 * 0x1p-24}},
            [&](const Kernels& k, auto on) { k.softmax_backward(on(dx), on(dp), on(p)); });
  }
}

void expect_top_k(const Both& p, std::int64_t choices, Renormalise renormalise) {
  Both weight = unwritten({p.cpu.dim(0), choices}, DType::f32), expert = unwritten({p.cpu.dim(0), choices}, DType::i32);
  compare({{"weight", &weight, 0}},
          [&](const Kernels& k, auto on) { k.top_k(on(weight), on(expert), on(p), renormalise); });
  const Tensor chosen = to_device(expert.gpu, Device{});
  EXPECT_EQ(std::memcmp(chosen.bytes(), expert.cpu.bytes(), chosen.size_in_bytes()), 0) << p.cpu.shape() << choices;
}

// The same comparisons, and the K weights added in the same order: the same bits.
TEST(CudaRouter, TopK) {
  for (Shape2 s : kShapes)
    for (std::int64_t choices : {1, 2, 3, 9})
      for (Renormalise renormalise : {Renormalise::no, Renormalise::yes})
        if (choices <= s.experts) expect_top_k(probabilities(s), choices, renormalise);
}

TEST(CudaRouter, TopKTakesTheLowerIndexFirstAmongEquals) {
  for (Shape2 s : kShapes) {
    Tensor p = random({s.tokens, s.experts}, 3);
    for (std::int64_t i = 0; i < p.numel(); ++i) p.data<float>()[i] = std::round(2 * p.data<float>()[i]);  // -0, too
    expect_top_k(both(p), std::min<std::int64_t>(s.experts, 4), Renormalise::no);
  }
}

TEST(CudaRouter, TopKChoosesDifferentExpertsEvenOfNaN) {
  const float nan = std::nanf(""), inf = INFINITY;
  const Both p = both(floats({3, 3}, {nan, nan, nan, nan, .5f, -inf, -1, nan, -nan}));
  Both weight = unwritten({3, 3}, DType::f32), expert = unwritten({3, 3}, DType::i32);
  kernels(kGpu).top_k(weight.gpu, expert.gpu, p.gpu, Renormalise::no);
  const Tensor chosen = to_device(expert.gpu, Device{});
  const std::vector<std::int32_t> numbers_first{0, 1, 2, 1, 2, 0, 0, 1, 2};
  EXPECT_TRUE(std::equal(numbers_first.begin(), numbers_first.end(), chosen.data<std::int32_t>()));
}

// Sums of at most nine terms in the same order, rounded or fused.
TEST(CudaRouter, TopKBackward) {
  for (Shape2 s : kShapes)
    for (std::int64_t choices : {1, 2, 9})
      for (Renormalise renormalise : {Renormalise::no, Renormalise::yes}) {
        if (choices > s.experts) continue;
        const Both p = probabilities(s), dweight = random_both({s.tokens, choices}, DType::f32, 2);
        Both weight = unwritten({s.tokens, choices}, DType::f32), expert = unwritten({s.tokens, choices}, DType::i32);
        kernels(Device{}).top_k(weight.cpu, expert.cpu, p.cpu, renormalise);
        weight = both(weight.cpu);
        expert = both(expert.cpu);
        Both dp = unwritten({s.tokens, s.experts}, DType::f32);
        compare({{"dp", &dp, 16 * 0x1p-24}}, [&](const Kernels& k, auto on) {
          k.top_k_backward(on(dp), on(dweight), on(weight), on(expert), on(p), renormalise);
        });
      }
}

TEST(CudaRouter, ChoiceFractions) {
  for (auto [groups, choices, experts] : {std::array<std::int64_t, 3>{1, 1, 1}, {3, 2, 5}, {40, 8, 129}})
    for (std::int64_t counted : {std::int64_t{1}, choices}) {
      std::vector<std::int32_t> counts;
      for (std::int64_t i = 0; i < groups * choices * experts; ++i) counts.push_back(std::int32_t(i * i % 991));
      const Both chosen = both(ints({groups, choices, experts}, counts));
      Both f = unwritten({groups, experts}, DType::f32);
      compare({{"f", &f, 0}}, [&, counted = counted](const Kernels& k, auto on) {
        k.choice_fractions(on(f), on(chosen), counted, 991 * 3);
      });
    }
}

constexpr Shape2 kSums[] = {{0, 8}, {1, 1}, {6, 3}, {72, 8}, {4500, 4}, {12, 300}};

// f p <= 1 summed over E experts is at most E / 2 or so a token, of which f32 sums of 300 terms in two orders keep all
// but some 16 roundings; the sum of tokens is double on the CPU and here a tree. All terms are positive.
TEST(CudaRouter, BalanceLoss) {
  for (Shape2 s : kSums)
    for (std::int64_t groups : {1, 3}) {
      if (s.tokens % groups != 0 || s.tokens < groups) continue;
      const Both p = probabilities(s), dloss = both(floats({1}, {.7f}));
      Tensor load = random({groups, s.experts}, 5);
      for (std::int64_t i = 0; i < load.numel(); ++i) load.data<float>()[i] = std::abs(load.data<float>()[i]);
      const Both f = both(load);
      Both loss = unwritten({1}, DType::f32), dp = unwritten({s.tokens, s.experts}, DType::f32);
      const float scale = .3f;
      compare({{"loss", &loss, 16 * 0x1p-24}, {"dp", &dp, 0}}, [&](const Kernels& k, auto on) {
        k.balance_loss(on(loss), on(p), on(f), scale);
        k.balance_loss_backward(on(dp), on(dloss), on(f), scale);
      });
    }
}

TEST(CudaRouter, BalanceLossOfNoTokensIsZero) {
  const Both p = both(Tensor::zeros({0, 4}, DType::f32, Device{})), f = both(floats({1, 4}, {0, 0, 0, 0}));
  Both loss = unwritten({1}, DType::f32);
  compare({{"loss", &loss, 0}}, [&](const Kernels& k, auto on) { k.balance_loss(on(loss), on(p), on(f), 1); });
}

// Squares are positive, and each sum of them is a tree or double: a few roundings relative to the sum.
TEST(CudaRouter, ZLoss) {
  for (Shape2 s : kSums) {
    const Both lse = random_both({s.tokens}, DType::f32, 4, 3), p = probabilities(s), dloss = both(floats({1}, {.7f}));
    Both loss = unwritten({1}, DType::f32), dx = unwritten({s.tokens, s.experts}, DType::f32);
    compare({{"loss", &loss, 16 * 0x1p-24}, {"dlogits", &dx, 0}}, [&](const Kernels& k, auto on) {
      k.z_loss(on(loss), on(lse), .3f);
      k.z_loss_backward(on(dx), on(dloss), on(lse), on(p), .3f);
    });
  }
}

// As above; the logarithm is good to 1 unit in the last place on either side. A certain choice adds nothing.
TEST(CudaRouter, Entropy) {
  for (Shape2 s : kSums) {
    const Both p = probabilities(s);
    Both sum = unwritten({1}, DType::f32);
    compare({{"entropy", &sum, 16 * 0x1p-24}}, [&](const Kernels& k, auto on) { k.entropy(on(sum), on(p)); });
  }
  const Both certain = both(floats({2, 3}, {0, 1, 0, .5f, .5f, 0}));
  Both sum = unwritten({1}, DType::f32);
  compare({{"entropy", &sum, 0x1p-23}}, [&](const Kernels& k, auto on) { k.entropy(on(sum), on(certain)); });
}

// Sums of p and of weights are of positive terms, double within a thread and pairwise beyond: a few roundings relative
// to the sum. Counts and the largest |logit| are exact.
TEST(CudaRouter, ObserveRouting) {
  constexpr Shape2 kTokens[] = {{0, 8}, {1, 1}, {33, 7}, {530, 33}, {4200, 8}, {9, 300}};
  for (Shape2 s : kTokens)
    for (const bool has_before : {true, false}) {
      const std::int64_t top_k = std::min<std::int64_t>(s.experts, 3);
      const Both x = logits(s), p = probabilities(s),
                 before = has_before ? random_both(x.cpu.shape(), DType::f32, 7) : Both{};
      Tensor weight = Tensor::empty({s.tokens, top_k}, DType::f32, Device{});
      Tensor expert = Tensor::zeros(weight.shape(), DType::i32, Device{}), slot = zeros_like(expert);
      for (std::int64_t i = 0; i < slot.numel(); ++i) {
        weight.data<float>()[i] = float(1 + i % 11) / 16;
        slot.data<std::int32_t>()[i] = i % 3 == 0 ? -1 : 0;
        expert.data<std::int32_t>()[i] = i % 7 == 3 ? -1 : 0;
      }
      const Both w = both(weight), chosen = both(expert), placed = both(slot);
      Both p_E = unwritten({s.experts}, DType::f32), kept = unwritten({top_k}, DType::i32),
           gate = unwritten({2}, DType::f32), logit = unwritten({1}, DType::f32), agreed = unwritten({1}, DType::i32);
      compare({{"p", &p_E, 16 * 0x1p-24},
               {"kept", &kept, 0},
               {"gate", &gate, 16 * 0x1p-24},
               {"logit", &logit, 0},
               {"agreed", &agreed, 0}},
              [&](const Kernels& k, auto on) {
                RoutingSums sums{on(p_E), on(kept), on(gate), on(logit), on(agreed)};
                k.observe_routing(sums, on(x), on(before), on(p), on(w), on(chosen), on(placed));
              });
    }
}

}  // namespace
}  // namespace switchyard::test
