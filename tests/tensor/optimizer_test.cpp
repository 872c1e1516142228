#include <cmath>
#include <cstring>
#include <vector>

#include "tensor/kernel_check.h"

namespace switchyard {
namespace {

using test::at, test::floats, test::random;

const Kernels& k = kernels(Device{});

Tensor copy_of(const Tensor& x) {
  Tensor y = empty_like(x);
  k.copy(y, x);
  return y;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return bool(a) == bool(b) && (!a || std::memcmp(a.bytes(), b.bytes(), a.size_in_bytes()) == 0);
}

// The update of arXiv 1711.05101, algorithm 2, on one element.
struct Element {
  double p, m = 0, v = 0;

  void step(double g, double lr, double beta1, double beta2, double eps, double decay, double t) {
    m = beta1 * m + (1 - beta1) * g;
    v = beta2 * v + (1 - beta2) * g * g;
    const double unbiased_m = m / (1 - std::pow(beta1, t)), unbiased_v = v / (1 - std::pow(beta2, t));
    p -= lr * (unbiased_m / (std::sqrt(unbiased_v) + eps) + decay * p);
  }
};

TEST(AdamW, IsTheDefinitionOverSeveralStepsAndTensors) {
  const float lr = 0.1f, beta1 = 0.9f, beta2 = 0.95f, eps = 1e-3f, decays[] = {0.5f, 0};
  std::vector<AdamWTensors> tensors;
  for (unsigned i = 0; i < 2; ++i) {
    const Shape shape = i == 0 ? Shape{3, 37} : Shape{100'003};  // the second takes several threads
    tensors.push_back({.param = random(shape, i),
                       .m = Tensor::zeros(shape, DType::f32, Device{}),
                       .v = Tensor::zeros(shape, DType::f32, Device{}),
                       .grad = {},
                       .weight_decay = decays[i]});
  }
  std::vector<std::vector<Element>> expected(2);
  for (std::size_t i = 0; i < 2; ++i)
    for (std::int64_t j = 0; j < tensors[i].param.numel(); ++j) expected[i].push_back({at(tensors[i].param, j)});

  const double grad_scale = 0.25;
  for (int t = 1; t <= 3; ++t) {
    for (std::size_t i = 0; i < 2; ++i) {
      tensors[i].grad = random(tensors[i].param.shape(), static_cast<unsigned>(10 * t) + static_cast<unsigned>(i));
      for (std::size_t j = 0; j < expected[i].size(); ++j)
        expected[i][j].step(grad_scale * at(tensors[i].grad, static_cast<std::int64_t>(j)), double(lr), double(beta1),
                            double(beta2), double(eps), double(decays[i]), t);
    }
    const AdamWStep step{.lr = lr,
                         .beta1 = beta1,
                         .beta2 = beta2,
                         .eps = eps,
                         .bias1 = static_cast<float>(1 - std::pow(double(beta1), t)),
                         .bias2 = static_cast<float>(1 - std::pow(double(beta2), t))};
    k.adamw(tensors, step, floats({1}, {static_cast<float>(grad_scale)}));
  }
  // A dozen f32 roundings a step of numbers up to 1, each 6e-8.
  for (std::size_t i = 0; i < 2; ++i)
    for (std::size_t j = 0; j < expected[i].size(); ++j) {
      const auto index = static_cast<std::int64_t>(j);
      ASSERT_NEAR(at(tensors[i].param, index), expected[i][j].p, 1e-6) << i << " " << j;
      ASSERT_NEAR(at(tensors[i].m, index), expected[i][j].m, 1e-7);
      ASSERT_NEAR(at(tensors[i].v, index), expected[i][j].v, 1e-7);
    }
}

// The first unbiased step is lr sign(g), whatever the gradient's size; decay takes lr decay p besides.
TEST(AdamW, TheFirstStepByHand) {
  AdamWTensors t{.param = floats({3}, {1, 2, -4}),
                 .m = Tensor::zeros({3}, DType::f32, Device{}),
                 .v = Tensor::zeros({3}, DType::f32, Device{}),
                 .grad = floats({3}, {1e-3f, -50, 0}),
                 .weight_decay = 0.5f};
  k.adamw({&t, 1}, {.lr = 0.1f, .beta1 = 0.5f, .beta2 = 0.75f, .eps = 0, .bias1 = 0.5f, .bias2 = 0.25f},
          floats({1}, {1}));
  EXPECT_NEAR(at(t.param, 0), 1 - 0.1 - 0.05, 1e-6);
  EXPECT_NEAR(at(t.param, 1), 2 + 0.1 - 0.1, 1e-6);
  EXPECT_TRUE(std::isnan(at(t.param, 2)));  // 0 / (0 + eps) without an eps
}

// lr decay = 1e-6: a factor 1 - 1e-6 would round to 1 - 1.013e-6 for every element alike. Rounding each result, 3e-8 at
// most, averages out: 1e-8 sqrt(10,000) of a total of 1e-6 * 5,000.
TEST(AdamW, ASmallDecayIsNotRoundedAway) {
  const Shape shape{10'000};
  Tensor param = random(shape, 1);
  const Tensor before = copy_of(param);
  const AdamWTensors t{.param = param,
                       .m = Tensor::zeros(shape, DType::f32, Device{}),
                       .v = Tensor::zeros(shape, DType::f32, Device{}),
                       .grad = Tensor::zeros(shape, DType::f32, Device{}),
                       .weight_decay = 0.1f};
  k.adamw({&t, 1}, {.lr = 1e-5f, .bias1 = 0.1f, .bias2 = 0.05f}, floats({1}, {1}));
  double size = 0, lost = 0;
  for (std::int64_t i = 0; i < before.numel(); ++i) {
    size += std::abs(at(before, i));
    lost += std::abs(at(before, i)) - std::abs(at(param, i));
  }
  EXPECT_NEAR(lost / size, 1e-6, 2e-9);
}

TEST(AdamW, WritesTheComputeCopyAnew) {
  for (const Shape& shape : {Shape{96, 64}, Shape{3, 40, 48}}) {
    Tensor param = random(shape, 1);
    Weight weight = make_weight(param, DType::bf16);
    const AdamWTensors t{.param = param,
                         .m = Tensor::zeros(shape, DType::f32, Device{}),
                         .v = Tensor::zeros(shape, DType::f32, Device{}),
                         .grad = random(shape, 2),
                         .weight = &weight};
    const Tensor before = copy_of(param);
    k.adamw({&t, 1}, {.lr = 0.1f, .bias1 = 0.1f, .bias2 = 0.05f}, floats({1}, {1}));
    ASSERT_FALSE(same_bits(before, param));
    const Weight expected = make_weight(param, DType::bf16), stale = make_weight(before, DType::bf16);
    EXPECT_TRUE(same_bits(weight.plain, expected.plain));
    EXPECT_TRUE(same_bits(weight.forward, expected.forward));
    EXPECT_TRUE(same_bits(weight.backward, expected.backward));
    EXPECT_FALSE(same_bits(weight.plain, stale.plain) && same_bits(weight.forward, stale.forward));
  }
}

TEST(AdamW, AScaleThatIsNotFiniteChangesNothing) {
  Tensor param = random({16, 16}, 1), m = random({16, 16}, 2), v = random({16, 16}, 3);
  Weight weight = make_weight(param, DType::bf16);
  std::memset(weight.forward.bytes(), 0x5a, weight.forward.size_in_bytes());  // would be seen to be packed anew
  const AdamWTensors t{.param = param, .m = m, .v = v, .grad = random({16, 16}, 4), .weight = &weight};
  const std::vector<Tensor> all{param, m, v, weight.forward};
  std::vector<Tensor> before;
  for (const Tensor& x : all) before.push_back(copy_of(x));
  for (float scale : {std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
    k.adamw({&t, 1}, {.lr = 0.1f, .bias1 = 0.1f, .bias2 = 0.05f}, floats({1}, {scale}));
    for (std::size_t i = 0; i < all.size(); ++i) EXPECT_TRUE(same_bits(all[i], before[i])) << scale << " " << i;
  }
}

TEST(AdamW, AnF32WeightIsTheMasterItself) {
  Tensor param = random({8, 8}, 1);
  Weight weight = make_weight(param, DType::f32);
  const AdamWTensors t{
      .param = param, .m = zeros_like(param), .v = zeros_like(param), .grad = random({8, 8}, 2), .weight = &weight};
  k.adamw({&t, 1}, {.lr = 0.1f, .bias1 = 0.1f, .bias2 = 0.05f}, floats({1}, {1}));
  EXPECT_EQ(weight.plain.bytes(), param.bytes());
}

TEST(SumSquares, AddsAllTensorsForAnyNumberOfThreads) {
  const std::vector<Tensor> xs{random({100'001}, 1), random({7, 5}, 2), Tensor::empty({0}, DType::f32, Device{})};
  double expected = 0;
  for (const Tensor& x : xs) expected += test::dot(x, x);
  const auto sum = [&]() -> std::vector<Tensor> {
    Tensor y = test::poisoned({1}, DType::f32);
    k.sum_squares(y, xs);
    return {y};
  };
  test::expect_same_bits_on_any_threads(sum);
  EXPECT_NEAR(at(sum()[0], 0), expected, 6e-8 * expected);  // summed in double, rounded once
}

TEST(SumSquares, OfNothingIsZero) {
  Tensor y = test::poisoned({1}, DType::f32);
  k.sum_squares(y, {});
  EXPECT_EQ(at(y, 0), 0);
}

TEST(SumSquares, ShowsWhatIsNotFinite) {
  Tensor y = Tensor::empty({1}, DType::f32, Device{});
  const std::vector<Tensor> nan{floats({2}, {1, std::nanf("")})}, large{floats({1}, {1e30f})};
  k.sum_squares(y, nan);
  EXPECT_TRUE(std::isnan(at(y, 0)));
  k.sum_squares(y, large);
  EXPECT_TRUE(std::isinf(at(y, 0)));
}

}  // namespace
}  // namespace switchyard
