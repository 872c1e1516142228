#include <deque>

#include "cuda/both.h"

namespace switchyard::test {
namespace {

constexpr AdafactorStep kStep{.lr = 0.05f, .beta1 = 0.9f, .beta2 = 0.7f, .clip = 0.5f, .scale_floor = 1e-3f};
constexpr std::int64_t kTileLines = 256, kTileColumns = 512, kMomentChunk = 4096;

enum class Copy { none, f32, bf16 };
// A parameter's matrices, and what is here of them; by default everything.
struct Stack {
  Shape shape;
  std::vector<MatrixBlock> blocks{};
  Copy copy = Copy::none;
};

std::int64_t held(const Stack& stack) {
  std::int64_t n = 0;
  for (const MatrixBlock& block : stack.blocks) n += block.numel();
  return n;
}

// Parameters in the middle of their training, each a part of one long tensor, `gap` elements apart.
class Model {
 public:
  explicit Model(std::vector<Stack> stacks, bool has_m = false, std::int64_t gap = 0)
      : stacks_(std::move(stacks)), has_m_(has_m), gap_(gap) {
    std::int64_t numbers = 0, count = 0;
    for (Stack& s : stacks_) {
      const bool is_vector = s.shape.rank() == 1;
      Matrices m{.count = s.shape.rank() == 3 ? s.shape[0] : 1,
                 .rows = is_vector ? 1 : s.shape[-2],
                 .columns = s.shape[-1],
                 .row = is_vector ? -1 : numbers,
                 .column = 0,
                 .first = count};
      if (!is_vector) numbers += m.count * m.rows;
      m.column = numbers;
      numbers += m.count * m.columns;
      count += m.count;
      matrices_.push_back(m);
      if (s.blocks.empty())
        s.blocks = {{.matrix = 0, .matrices = m.count, .line = 0, .lines = m.rows, .column = 0, .width = m.columns}};
      size_ += held(s) + gap_;
    }
    param = random_both({size_}, DType::f32, 1);
    grad = random_both({size_}, DType::f32, 2);
    moment = random_both({size_}, DType::f32, 3, 0.01f);
    copy = both(Tensor::zeros({size_}, DType::bf16, Device{}));
    Tensor squares = random({numbers}, 4);
    for (float& x : std::span(squares.data<float>(), std::size_t(numbers))) x = x * x + 0.01f;
    v = both(squares);
    factors = unwritten({numbers}, DType::f32);
    sums = unwritten({count, 2}, DType::f32);
  }

  // All four rows on one device.
  template <class On>
  void step(const Kernels& k, On on, const Tensor& grad_scale_1) {
    std::deque<Weight> weights;
    const std::vector<AdafactorTensors> tensors = tensors_of(on, grad_scale_1.device() == kGpu, weights);
    k.square_means(on(factors), tensors, grad_scale_1);
    k.moment_factors(on(v), on(factors), matrices_, kStep, grad_scale_1);
    k.update_squares(on(sums), tensors, on(factors), grad_scale_1);
    k.adafactor(tensors, kStep, on(factors), on(sums), grad_scale_1);
  }

  // All four rows, each from what the CPU had before it, so that tolerances are of one row each.
  void compare_step(float grad_scale) {
    const Both scale = both(floats({1}, {grad_scale}));
    const auto on_both = [&](std::initializer_list<Output> outputs, auto row) {
      compare(outputs, [&](const Kernels& k, auto on) {
        std::deque<Weight> weights;
        const std::vector<AdafactorTensors> tensors = tensors_of(on, on(scale).device() == kGpu, weights);
        row(k, on, tensors);
        if (on(scale).device() != kGpu) refresh_copies(k);
      });
      for (Both* x : {&param, &moment, &v, &factors, &sums, &copy}) *x = both(x->cpu);
    };
    // f32 sums of positive terms: at most 32 of a thread, five of a warp's lanes and eight of warps, or 16 spans here
    // and 64 runs there.
    on_both({{"means", &factors, 64 * 0x1p-24}},
            [&](const Kernels& k, auto on, const auto& tensors) { k.square_means(on(factors), tensors, on(scale)); });
    // a product, a sum, a root and two quotients; the mean is a sum of 16 a thread
    on_both({{"v", &v, 4 * 0x1p-24}, {"factors", &factors, 32 * 0x1p-24}}, [&](const Kernels& k, auto on, const auto&) {
      k.moment_factors(on(v), on(factors), matrices_, kStep, on(scale));
    });
    on_both({{"squares", &sums, 512 * 0x1p-24}}, [&](const Kernels& k, auto on, const auto& tensors) {
      k.update_squares(on(sums), tensors, on(factors), on(scale));
    });
    // five products and sums; the copy rounds that to 8 bits, upwards here and downwards there
    on_both({{"param", &param, 8 * 0x1p-24}, {"moment", &moment, 8 * 0x1p-24}, {"copy", &copy, 0x1p-7}},
            [&](const Kernels& k, auto on, const auto& tensors) {
              k.adafactor(tensors, kStep, on(factors), on(sums), on(scale));
            });
  }

  Both param, grad, moment, v, factors, sums, copy;

 private:
  // The GPU's compute copy is plain bf16. The CPU's is not, so that it gets none: refresh_copies makes the same.
  template <class On>
  std::vector<AdafactorTensors> tensors_of(On on, bool is_gpu, std::deque<Weight>& weights) {
    std::vector<AdafactorTensors> tensors;
    std::int64_t begin = gap_;
    for (std::size_t i = 0; i < stacks_.size(); ++i) {
      const std::int64_t end = begin + held(stacks_[i]);
      const auto part = [&](Both& x) { return on(x).rows(begin, end); };
      Weight* weight = nullptr;
      if (stacks_[i].copy != Copy::none && is_gpu)
        weight = &weights.emplace_back(Weight{.shape = {end - begin},
                                              .dtype = stacks_[i].copy == Copy::bf16 ? DType::bf16 : DType::f32,
                                              .plain = part(stacks_[i].copy == Copy::bf16 ? copy : param),
                                              .forward = {},
                                              .backward = {}});
      tensors.push_back({.param = part(param),
                         .m = has_m_ ? part(moment) : Tensor(),
                         .grad = part(grad),
                         .weight = weight,
                         .weight_decay = i % 2 ? 0.1f : 0,
                         .matrices = matrices_[i],
                         .blocks = stacks_[i].blocks});
      begin = end + gap_;
    }
    return tensors;
  }

  void refresh_copies(const Kernels& k) {
    std::int64_t begin = gap_;
    for (const Stack& s : stacks_) {
      Tensor to = copy.cpu.rows(begin, begin + held(s));
      if (s.copy == Copy::bf16) k.copy(to, param.cpu.rows(begin, begin + held(s)));
      begin += held(s) + gap_;
    }
  }

  std::vector<Stack> stacks_;
  std::vector<Matrices> matrices_;
  bool has_m_;
  std::int64_t gap_, size_ = 0;
};

TEST(CudaAdafactor, MatricesAroundTheSizeOfATile) {
  for (const Shape& shape : {Shape{1, 1}, Shape{7, 3}, Shape{kTileLines, kTileColumns}, Shape{kTileLines + 1, 20},
                             Shape{9, kTileColumns + 4}, Shape{2 * kTileLines + 3, kTileColumns + 1}})
    Model({{.shape = shape, .copy = Copy::bf16}}).compare_step(0.25f);
}

TEST(CudaAdafactor, ManyParametersInOneLaunch) {
  for (const bool has_m : {false, true})
    for (const std::int64_t gap : {0, 1})  // off 16 bytes
      Model({{.shape = {64, 40}, .copy = Copy::bf16},
             {.shape = {24}},
             {.shape = {5, 12, 16}, .copy = Copy::bf16},
             {.shape = {kTileColumns + 9}, .copy = Copy::f32},
             {.shape = {3, 2, 7}}},
            has_m, gap)
          .compare_step(1);
}

TEST(CudaAdafactor, MomentsOfMoreThanAChunk) {
  Model({{.shape = {kMomentChunk + 5, 2}}, {.shape = {2, 9000}}}).compare_step(1);
}

// As a shared-out optimizer and cuts over ranks have them; of the last nothing is here.
TEST(CudaAdafactor, PartsOfMatrices) {
  Model({{.shape = {3, 10, 14},
          .blocks = {{.matrix = 1, .matrices = 1, .line = 3, .lines = 1, .column = 5, .width = 9},
                     {.matrix = 1, .matrices = 1, .line = 4, .lines = 6, .column = 0, .width = 14},
                     {.matrix = 2, .matrices = 1, .line = 0, .lines = 2, .column = 0, .width = 14},
                     {.matrix = 2, .matrices = 1, .line = 2, .lines = 1, .column = 0, .width = 4}},
          .copy = Copy::bf16},
         {.shape = {12, 8},
          .blocks = {{.matrix = 0, .matrices = 1, .line = 0, .lines = 4, .column = 4, .width = 4},
                     {.matrix = 0, .matrices = 1, .line = 8, .lines = 4, .column = 4, .width = 4}},
          .copy = Copy::bf16},
         {.shape = {10}, .blocks = {{.matrix = 0, .matrices = 1, .line = 0, .lines = 1, .column = 7, .width = 3}}},
         {.shape = {4, 4}, .blocks = {{.matrix = 0, .matrices = 1, .line = 0, .lines = 0, .column = 0, .width = 4}}}})
      .compare_step(1);
}

TEST(CudaAdafactor, AScaleThatIsNotFiniteChangesNothing) {
  for (const float scale : {std::nanf(""), HUGE_VALF}) {
    Model model({{.shape = {5, 12}, .copy = Copy::bf16}, {.shape = {9}}}, true);
    const std::vector<Both*> kept{&model.param, &model.moment, &model.v, &model.copy};
    std::vector<Tensor> before;
    for (const Both* x : kept) before.push_back(to_device(x->gpu, Device{}));
    model.step(
        kernels(kGpu), [](auto& x) -> auto& { return x.gpu; }, both(floats({1}, {scale})).gpu);
    for (std::size_t i = 0; i < kept.size(); ++i) expect_agreement(kept[i]->gpu, before[i], 0, "kept");
  }
}

TEST(CudaAdafactor, NoParameters) {
  const Both scale = both(floats({1}, {1}));
  Tensor none = Tensor::empty({0}, DType::f32, kGpu), squares = Tensor::empty({0, 2}, DType::f32, kGpu);
  kernels(kGpu).square_means(none, {}, scale.gpu);
  kernels(kGpu).moment_factors(none, none, {}, kStep, scale.gpu);
  kernels(kGpu).update_squares(squares, {}, none, scale.gpu);
  kernels(kGpu).adafactor({}, kStep, none, squares, scale.gpu);
}

}  // namespace
}  // namespace switchyard::test
