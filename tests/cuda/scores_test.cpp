#include "cuda/both.h"

namespace switchyard::test {
namespace {

struct Shape2 {
  std::int64_t tokens, experts;
};
constexpr Shape2 kShapes[] = {{0, 8}, {1, 3}, {33, 7}, {530, 33}, {3, 300}};

// Functions good to a few units in the last place on either side, and sums of E positive terms in two orders.
constexpr double kRounding = 16 * 0x1p-24;

TEST(CudaScores, SigmoidAndBackward) {
  for (Shape2 s : kShapes) {
    const Shape shape{s.tokens, s.experts};
    const Both x = random_both(shape, DType::f32, 1, 6), ds = random_both(shape, DType::f32, 2),
               dshare = random_both(shape, DType::f32, 3);
    Both y = unwritten(shape, DType::f32), share = unwritten(shape, DType::f32), dx = unwritten(shape, DType::f32);
    compare({{"s", &y, kRounding}, {"share", &share, kRounding}},
            [&](const Kernels& k, auto on) { k.sigmoid(on(y), on(share), on(x)); });
    // The difference of dshare and its mean, of size 2, is divided by a sum of sigmoids, which one expert can make
    // small.
    compare({{"dlogits", &dx, 16 * kRounding}},
            [&](const Kernels& k, auto on) { k.sigmoid_backward(on(dx), on(ds), on(dshare), on(y)); });
  }
}

TEST(CudaScores, NoisyLogitsAndBackward) {
  for (Shape2 s : kShapes) {
    const Shape shape{s.tokens, s.experts};
    const Both clean = random_both(shape, DType::f32, 1), raw = random_both(shape, DType::f32, 2, 5),
               normal = random_both(shape, DType::f32, 3, 2);
    Both noisy = unwritten(shape, DType::f32), sigma = unwritten(shape, DType::f32),
         draw = unwritten(shape, DType::f32);
    compare({{"noisy", &noisy, kRounding}, {"sigma", &sigma, kRounding}}, [&](const Kernels& k, auto on) {
      k.noisy_logits(on(noisy), on(sigma), on(clean), on(raw), on(normal), 0.01f);
    });
    compare({{"draw", &draw, kRounding}}, [&](const Kernels& k, auto on) {
      k.noisy_logits_backward(on(draw), on(clean), on(normal), on(raw), on(normal));
    });
  }
}

TEST(CudaScores, ChoiceProbabilityAndBackward) {
  for (Shape2 s : kShapes)
    for (const std::int64_t top_k : {1, 2}) {
      const Shape shape{s.tokens, s.experts}, best_shape{s.tokens, top_k + 1};
      const Both clean = random_both(shape, DType::f32, 1), dp = random_both(shape, DType::f32, 2);
      Tensor deviations = random(shape, 3), best = Tensor::empty(best_shape, DType::f32, Device{}),
             chosen = Tensor::empty(best_shape, DType::i32, Device{});
      for (std::int64_t i = 0; i < deviations.numel(); ++i)
        deviations.data<float>()[i] = 0.5f + std::abs(deviations.data<float>()[i]);
      kernels(Device{}).top_k(best, chosen, random(shape, 4), Renormalise::no);
      const Both sigma = both(deviations), limit = both(best), expert = both(chosen);
      Both p = unwritten(shape, DType::f32), dclean = unwritten(shape, DType::f32),
           dsigma = unwritten(shape, DType::f32), dbest = unwritten(best_shape, DType::f32);
      // A rival's gradient sums up to 300 terms of size 1 in another order.
      compare({{"p", &p, kRounding}}, [&](const Kernels& k, auto on) {
        k.choice_probability(on(p), on(clean), on(sigma), on(limit), on(expert));
      });
      compare({{"dclean", &dclean, kRounding}, {"dsigma", &dsigma, kRounding}, {"dbest", &dbest, 300 * 0x1p-24}},
              [&](const Kernels& k, auto on) {
                k.choice_probability_backward(on(dclean), on(dsigma), on(dbest), on(dp), on(clean), on(sigma),
                                              on(limit), on(expert));
              });
    }
}

// Both sum in double and round once.
TEST(CudaScores, SquaredVariation) {
  for (Shape2 s : {Shape2{1, 1}, Shape2{3, 8}, Shape2{2, 300}}) {
    Tensor load = random({s.tokens, s.experts}, 1);
    for (std::int64_t i = 0; i < load.numel(); ++i) load.data<float>()[i] = 3 + load.data<float>()[i];
    const Both sum = both(load);
    Both loss = unwritten({1}, DType::f32), dsum = unwritten(load.shape(), DType::f32);
    compare({{"loss", &loss, 0x1p-23}, {"dsum", &dsum, 0x1p-23}},
            [&](const Kernels& k, auto on) { k.squared_variation(on(loss), on(dsum), on(sum), 0.3f); });
  }
}

// A sine of an angle up to 2 pi is good to 2^-22 of it, times a radius of up to 6.
TEST(CudaRandom, NormalAndJitterAreThoseOfTheCpu) {
  for (const std::int64_t count : {0, 1, 3, 4, 4099})
    for (const std::uint64_t first : {std::uint64_t{0}, std::uint64_t{7}, (std::uint64_t{1} << 34) - 1}) {
      const Both x = random_both({count}, DType::f32, 1);
      Both y = unwritten({count}, DType::f32), z = unwritten({count}, DType::f32);
      compare({{"normal", &y, 6 * 0x1p-20}},
              [&](const Kernels& k, auto on) { k.normal(on(y), philox_key(3, "test"), first); });
      compare({{"jitter", &z, 0x1p-22}},
              [&](const Kernels& k, auto on) { k.jitter(on(z), on(x), philox_key(3, "test"), first, 0.25f); });
    }
}

}  // namespace
}  // namespace switchyard::test
