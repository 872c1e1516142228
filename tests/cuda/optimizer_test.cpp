#include <deque>

#include "cuda/both.h"

namespace switchyard::test {
namespace {

constexpr AdamWStep kStep{.lr = 0.01f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-6f, .bias1 = 0.19f, .bias2 = 0.0975f};
constexpr std::int64_t kChunk = 4096;  // elements that a block takes at a time

enum class Copy { none, f32, bf16 };
struct Part {
  std::int64_t size;
  float decay = 0;
  Copy copy = Copy::none;
};

// Parameters in the middle of their training, each a part of one long tensor: where the sizes before it do not add up
// to a multiple of four, 16-byte accesses are not allowed.
class Model {
 public:
  explicit Model(std::vector<Part> parts) : parts_(std::move(parts)) {
    for (const Part& p : parts_) size_ += p.size;
    param = random_both({size_}, DType::f32, 1);
    m = random_both({size_}, DType::f32, 2);
    Tensor squares = random({size_}, 3);
    for (float& x : std::span(squares.data<float>(), static_cast<std::size_t>(size_))) x *= x;
    v = both(squares);
    grad = random_both({size_}, DType::f32, 4);
    copy = both(Tensor::zeros({size_}, DType::bf16, Device{}));
  }

  // The GPU's compute copy is plain bf16. The CPU's is not, so that it gets none: refresh_copies makes the same.
  template <class On>
  void step(const Kernels& k, On on, const Tensor& grad_scale_1) {
    std::vector<AdamWTensors> tensors;
    std::deque<Weight> weights;
    std::int64_t begin = 0;
    for (const Part& p : parts_) {
      const std::int64_t end = begin + p.size;
      const auto part = [&](Both& x) { return on(x).rows(begin, end); };
      Weight* weight = nullptr;
      if (p.copy != Copy::none && grad_scale_1.device() == kGpu)
        weight = &weights.emplace_back(Weight{.shape = {p.size},
                                              .dtype = p.copy == Copy::bf16 ? DType::bf16 : DType::f32,
                                              .plain = part(p.copy == Copy::bf16 ? copy : param),
                                              .forward = {},
                                              .backward = {}});
      tensors.push_back({.param = part(param),
                         .m = part(m),
                         .v = part(v),
                         .grad = part(grad),
                         .weight = weight,
                         .weight_decay = p.decay});
      begin = end;
    }
    k.adamw(tensors, kStep, grad_scale_1);
    if (grad_scale_1.device() != kGpu) refresh_copies(k, grad_scale_1);
  }

  // Beside the CPU. m and v are two products and a sum, which each compiler fuses as it likes: three roundings of
  // numbers up to 1, 2^-24 each. The parameter's step, which may be longer than the parameter where v is small, is m by
  // the root of v, with five more roundings. The copy rounds that to 8 bits, upwards here and downwards there.
  void compare_step(float grad_scale) {
    const Both scale = both(floats({1}, {grad_scale}));
    compare(
        {{"param", &param, kParamTolerance}, {"m", &m, 3 * 0x1p-24}, {"v", &v, 3 * 0x1p-24}, {"copy", &copy, 0x1p-7}},
        [&](const Kernels& k, auto on) { step(k, on, on(scale)); });
  }

  // Every compute copy on the GPU is exactly its parameter, rounded; and nothing else was written.
  void expect_copies_of_params() const {
    const Tensor params = to_device(param.gpu, Device{}), copies = to_device(copy.gpu, Device{});
    std::int64_t i = 0;
    for (const Part& p : parts_)
      for (const std::int64_t end = i + p.size; i < end; ++i) {
        const float expected = p.copy == Copy::bf16 ? static_cast<float>(bf16(params.data<float>()[i])) : 0;
        ASSERT_EQ(static_cast<float>(copies.data<bf16>()[i]), expected) << i;
      }
  }

  static constexpr double kParamTolerance = (3 + 3 + 5) * 0x1p-24;

  Both param, m, v, grad, copy;

 private:
  void refresh_copies(const Kernels& k, const Tensor& grad_scale_1) {
    if (!std::isfinite(grad_scale_1.data<float>()[0])) return;
    std::int64_t begin = 0;
    for (const Part& p : parts_) {
      Tensor to = copy.cpu.rows(begin, begin + p.size);
      if (p.copy == Copy::bf16) k.copy(to, param.cpu.rows(begin, begin + p.size));
      begin += p.size;
    }
  }

  std::vector<Part> parts_;
  std::int64_t size_ = 0;
};

TEST(CudaAdamW, OneTensorOfEverySize) {
  for (std::int64_t size : {0L, 1L, 3L, 4L, 7L, 1024L, kChunk - 1, kChunk, kChunk + 1, 3 * kChunk + 6})
    for (Copy copy : {Copy::none, Copy::f32, Copy::bf16}) {
      Model model({{.size = size, .decay = 0.1f, .copy = copy}});
      model.compare_step(0.25f);
      model.expect_copies_of_params();
    }
}

TEST(CudaAdamW, ManyTensorsInOneLaunch) {
  Model model({{.size = 64, .decay = 0.1f, .copy = Copy::bf16},
               {.size = 0, .decay = 0.1f, .copy = Copy::bf16},
               {.size = 2 * kChunk, .decay = 0.5f, .copy = Copy::bf16},
               {.size = 7},  // what follows is off 16 bytes
               {.size = kChunk + 2, .decay = 0.1f, .copy = Copy::bf16},
               {.size = 1, .copy = Copy::f32},
               {.size = 130, .decay = 0.1f},
               {.size = 0}});
  model.compare_step(1);
  model.expect_copies_of_params();
}

TEST(CudaAdamW, MoreChunksThanTheGridHasBlocks) {
  Model model({{.size = 20 * kChunk + 5, .decay = 0.1f, .copy = Copy::bf16}, {.size = kChunk}});
  model.compare_step(1);
  model.expect_copies_of_params();
}

TEST(CudaAdamW, ThousandsOfTensors) {  // a table of more than a megabyte, larger than any one copy that need not wait
  std::vector<Part> parts;
  for (int i = 0; i < 17'000; ++i)
    parts.push_back({.size = i % 3 + 1, .decay = i % 2 ? 0.1f : 0, .copy = i % 5 ? Copy::none : Copy::bf16});
  Model model(std::move(parts));
  const Both scale = both(floats({1}, {1}));
  for (bool gpu : {false, true})
    gpu ? model.step(
              kernels(kGpu), [](auto& x) -> auto& { return x.gpu; }, scale.gpu)
        : model.step(
              kernels(Device{}), [](auto& x) -> auto& { return x.cpu; }, scale.cpu);
  expect_agreement(model.param.gpu, model.param.cpu, Model::kParamTolerance, "param");
  model.expect_copies_of_params();
}

TEST(CudaAdamW, NoTensors) {
  const Both scale = both(floats({1}, {1}));
  kernels(kGpu).adamw({}, kStep, scale.gpu);
}

TEST(CudaAdamW, AScaleThatIsNotFiniteChangesNothing) {
  for (float scale : {std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
    Model model({{.size = 37, .decay = 0.1f, .copy = Copy::bf16}, {.size = kChunk, .decay = 0.1f}});
    const Tensor before = to_device(model.param.gpu, Device{});
    model.compare_step(scale);
    expect_agreement(model.param.gpu, before, 0, "param");
    expect_agreement(model.copy.gpu, Tensor::zeros(model.copy.cpu.shape(), DType::bf16, Device{}), 0, "copy");
  }
}

// lr decay = 1e-6: a factor 1 - 1e-6 would round to 1 - 1.013e-6 for every element alike. Rounding each result, 3e-8 at
// most, averages out: 1e-8 sqrt(10,000) of a total of 1e-6 * 5,000.
TEST(CudaAdamW, ASmallDecayIsNotRoundedAway) {
  const Both before = random_both({10'000}, DType::f32, 1);
  Tensor param = Tensor::empty({10'000}, DType::f32, kGpu);
  kernels(kGpu).copy(param, before.gpu);
  const auto zeros = [] { return Tensor::zeros({10'000}, DType::f32, kGpu); };
  const AdamWTensors t{.param = param, .m = zeros(), .v = zeros(), .grad = zeros(), .weight_decay = 0.1f};
  kernels(kGpu).adamw({&t, 1}, {.lr = 1e-5f, .bias1 = 0.1f, .bias2 = 0.05f}, both(floats({1}, {1})).gpu);
  const Tensor after = to_device(param, Device{});
  double size = 0, lost = 0;
  for (std::int64_t i = 0; i < after.numel(); ++i) {
    size += std::abs(at(before.cpu, i));
    lost += std::abs(at(before.cpu, i)) - std::abs(at(after, i));
  }
  EXPECT_NEAR(lost / size, 1e-6, 2e-9);
}

// The CPU sums in double. Here a thread adds at most eight squares a sum, two pairs of sums, and the block ten more
// times, all positive: each addition and the square itself rounds by 2^-24 of the sum at most. Chunks add in double.
constexpr double kSquaresTolerance = (8 + 2 + 10 + 2) * 0x1p-24;

void compare_squares(const std::vector<Both>& xs) {
  Both y = unwritten({1}, DType::f32);
  compare({{"y", &y, kSquaresTolerance}}, [&](const Kernels& k, auto on) {
    std::vector<Tensor> tensors;
    for (const Both& x : xs) tensors.push_back(on(x));
    k.sum_squares(on(y), tensors);
  });
}

TEST(CudaSumSquares, OneTensorOfEverySize) {
  for (std::int64_t size : {0L, 1L, 3L, 4L, 1023L, 8192L, 8193L, 50'001L})
    compare_squares({random_both({size}, DType::f32, 1)});
}

TEST(CudaSumSquares, ManyTensors) {
  compare_squares({});
  std::vector<Both> xs;
  for (unsigned i = 0; i < 40; ++i) xs.push_back(random_both({i * i * 9}, DType::f32, i));
  const Both rows = random_both({5, 3}, DType::f32, 50);
  xs.push_back({rows.cpu.rows(1, 4), rows.gpu.rows(1, 4)});  // off 16 bytes
  compare_squares(xs);
}

TEST(CudaSumSquares, MoreChunksThanTheGridHasBlocks) { compare_squares({random_both({200'003}, DType::f32, 1)}); }

TEST(CudaSumSquares, ShowsWhatIsNotFinite) {
  compare_squares({both(floats({2}, {1, std::nanf("")}))});
  compare_squares({both(floats({1}, {1e30f}))});
  compare_squares({both(floats({5}, {1, 1, 1, 1, -HUGE_VALF}))});
}

TEST(CudaOptimizer, ClipFactor) {
  for (const float clip : {0.0f, 0.5f, 7.0f})
    for (const std::vector<float>& values : {std::vector<float>{4, 5}, {0, 0}, {INFINITY, 1}, {NAN, 1}}) {
      const Both squares = both(floats({2}, values));
      Both factor = unwritten({1}, DType::f32);
      compare({{"factor", &factor, 0}},  // both in f64
              [&](const Kernels& k, auto on) { k.clip_factor(on(factor), on(squares), clip); });
    }
}

}  // namespace
}  // namespace switchyard::test
