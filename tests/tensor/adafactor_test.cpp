#include "adafactor_definition.h"

#include <cstring>

#include "tensor/kernel_check.h"

namespace switchyard {
namespace {

using test::AdafactorMatrix, test::at, test::floats, test::random;

const Kernels& k = kernels(Device{});

// Parameters of any shape with the memory that a step needs; this rank has all of them, in the blocks that it is told.
struct Stacks {
  std::vector<Shape> shapes;
  std::vector<std::vector<MatrixBlock>> blocks;
  std::vector<AdafactorTensors> tensors;
  std::vector<Matrices> all;
  std::int64_t matrices = 0;
  Tensor v, means, squares;

  explicit Stacks(std::vector<Shape> of, bool has_m = false) : shapes(std::move(of)) {
    std::int64_t numbers = 0;
    for (const Shape& shape : shapes) {
      const bool is_vector = shape.rank() == 1;
      Matrices m{.count = shape.rank() == 3 ? shape[0] : 1,
                 .rows = is_vector ? 1 : shape[-2],
                 .columns = shape[-1],
                 .row = is_vector ? -1 : numbers,
                 .column = 0,
                 .first = matrices};
      if (!is_vector) numbers += m.count * m.rows;
      m.column = numbers;
      numbers += m.count * m.columns;
      matrices += m.count;
      blocks.push_back(
          {{.matrix = 0, .matrices = m.count, .line = 0, .lines = m.rows, .column = 0, .width = m.columns}});
      tensors.push_back({.param = random(shape, unsigned(all.size()), 0.5f),
                         .m = has_m ? Tensor::zeros(shape, DType::f32, Device{}) : Tensor(),
                         .grad = {},
                         .weight_decay = all.size() % 2 ? 0.5f : 0,
                         .matrices = m});
      all.push_back(m);
    }
    v = Tensor::zeros({numbers}, DType::f32, Device{});
    means = test::poisoned({numbers}, DType::f32);
    squares = test::poisoned({matrices, 2}, DType::f32);
  }

  void step(const AdafactorStep& s, float grad_scale = 1) {
    const Tensor scale = floats({1}, {grad_scale});
    for (std::size_t i = 0; i < tensors.size(); ++i) tensors[i].blocks = blocks[i];
    k.square_means(means, tensors, scale);
    k.moment_factors(v, means, all, s, scale);
    k.update_squares(squares, tensors, means, scale);
    k.adafactor(tensors, s, means, squares, scale);
  }

  std::vector<AdafactorMatrix> definition() const {
    std::vector<AdafactorMatrix> matrices;
    for (const AdafactorTensors& t : tensors)
      for (std::int64_t i = 0; i < t.matrices.count; ++i) {
        AdafactorMatrix matrix{
            .rows = t.matrices.rows, .columns = t.matrices.columns, .p = {}, .is_vector = t.matrices.row < 0};
        matrix.p = values(t.param, t.matrices, i);
        matrix.m.resize(matrix.p.size());
        matrices.push_back(std::move(matrix));
      }
    return matrices;
  }

  static std::vector<double> values(const Tensor& x, const Matrices& m, std::int64_t i, double scale = 1) {
    std::vector<double> out;
    for (std::int64_t j = i * m.numel(); j < (i + 1) * m.numel(); ++j) out.push_back(scale * at(x, j));
    return out;
  }
};

// Lines longer than a run and than a span, one block that takes several threads, experts whose gradients differ by a
// thousand, a matrix of one row, a vector.
const std::vector<Shape> kShapes{{70, 530}, {3, 130, 40}, {1, 24}, {24}, {300, 150}, {257, 3}};

// f32 sums of positive terms, a root and five products, each rounded by 2^-24: 2e-6 of an update of at most
// lr sqrt(n) |p|.
void compare_steps(const AdafactorStep& first, bool has_m, bool expect_clipping) {
  Stacks stacks(kShapes, has_m);
  std::vector<AdafactorMatrix> expected = stacks.definition();
  bool was_clipped = false, was_not = false;
  for (unsigned t = 1; t <= 4; ++t) {
    AdafactorStep s = first;
    s.beta2 = static_cast<float>(1 - std::pow(t, -0.8));
    std::size_t n = 0;
    for (std::size_t i = 0; i < stacks.tensors.size(); ++i) {
      AdafactorTensors& tensors = stacks.tensors[i];
      // later steps have larger gradients, against which the moments are small and updates large
      tensors.grad = random(stacks.shapes[i], 10 * t + unsigned(i), t == 3 ? 8.0f : 1.0f);
      if (i == 1) {
        float* g = tensors.grad.data<float>();
        for (std::int64_t j = 0; j < 130 * 40; ++j) g[j] *= 1e-3f;
        std::fill_n(g + 130 * 40, 40, 0.0f);  // a row without a gradient
      }
      for (std::int64_t j = 0; j < tensors.matrices.count; ++j, ++n) {
        expected[n].step(Stacks::values(tensors.grad, tensors.matrices, j, 0.25), s, double(tensors.weight_decay));
        (expected[n].rms_of_update > double(s.clip) ? was_clipped : was_not) = true;
      }
    }
    stacks.step(s, 0.25f);
    n = 0;
    for (const AdafactorTensors& tensors : stacks.tensors)
      for (std::int64_t j = 0; j < tensors.matrices.count; ++j, ++n)
        for (std::int64_t e = 0; e < tensors.matrices.numel(); ++e) {
          ASSERT_NEAR(at(tensors.param, j * tensors.matrices.numel() + e), expected[n].p[std::size_t(e)], 1e-6)
              << "matrix " << n << ", element " << e << ", step " << t;
          if (has_m) {
            ASSERT_NEAR(at(tensors.m, j * tensors.matrices.numel() + e), expected[n].m[std::size_t(e)], 1e-6);
          }
        }
  }
  if (expect_clipping) {
    EXPECT_TRUE(was_clipped && was_not);
  }
}

TEST(Adafactor, IsTheDefinitionOverSeveralSteps) { compare_steps({.lr = 0.05f, .scale_floor = 1e-3f}, false, true); }
TEST(Adafactor, IsTheDefinitionWithoutClipping) { compare_steps({.lr = 0.05f, .clip = 0}, false, false); }
TEST(Adafactor, IsTheDefinitionWithAFirstMoment) {
  compare_steps({.lr = 0.05f, .beta1 = 0.9f, .scale_floor = 1e-3f}, true, true);
}

// The first step has beta2 = 0. Of a matrix of rank one, v is g^2, and so u = sign(g), whose root mean square is 1.
TEST(Adafactor, TheFirstStepByHand) {
  Stacks stacks({{2, 3}, {2}});
  stacks.tensors[0].param = floats({2, 3}, {1, 1, 1, 1, 1, 1});
  stacks.tensors[0].grad = floats({2, 3}, {1, -2, 3, 10, -20, 30});
  stacks.tensors[1].param = floats({2}, {0, 0});
  stacks.tensors[1].weight_decay = 0;
  stacks.tensors[1].grad = floats({2}, {1e-12f, -5});
  stacks.step({.lr = 0.1f, .beta2 = 0, .scale_floor = 0.5f});
  for (std::int64_t i = 0; i < 6; ++i) EXPECT_NEAR(at(stacks.tensors[0].param, i), i % 3 == 1 ? 1.1 : 0.9, 1e-6);
  EXPECT_NEAR(at(stacks.tensors[1].param, 0), -0.05, 1e-6);  // a vector of zeros moves by lr scale_floor
  EXPECT_NEAR(at(stacks.tensors[1].param, 1), 0.05, 1e-6);
}

TEST(Adafactor, ZerosStayWhereTheyAre) {
  Stacks stacks({{4, 4}, {5}});
  for (AdafactorTensors& t : stacks.tensors) t.grad = zeros_like(t.param), t.weight_decay = 0;
  const Tensor before = random({4, 4}, 0, 0.5f);
  for (int i = 0; i < 2; ++i) stacks.step({.lr = 0.1f, .beta2 = 0.5f});
  for (std::int64_t i = 0; i < 16; ++i) EXPECT_EQ(at(stacks.tensors[0].param, i), at(before, i));
}

// Parts of rows, several rows, parts of columns: as ranks with flat slices and with cuts have them. Each adds what it
// has, and the sums of all are those of the whole.
TEST(Adafactor, BlocksOfMatricesAddUpToTheWhole) {
  const Shape shape{3, 10, 14};
  const std::vector<MatrixBlock> pieces{{.matrix = 0, .matrices = 2, .line = 0, .lines = 10, .column = 0, .width = 14},
                                        {.matrix = 2, .matrices = 1, .line = 0, .lines = 3, .column = 0, .width = 14},
                                        {.matrix = 2, .matrices = 1, .line = 3, .lines = 1, .column = 0, .width = 5},
                                        {.matrix = 2, .matrices = 1, .line = 3, .lines = 1, .column = 5, .width = 9},
                                        {.matrix = 2, .matrices = 1, .line = 4, .lines = 6, .column = 0, .width = 14}};
  Stacks whole({shape}), cut({shape});
  cut.blocks[0] = pieces;
  whole.tensors[0].grad = cut.tensors[0].grad = random(shape, 7);
  const AdafactorStep s{.lr = 0.1f, .beta2 = 0.5f, .clip = 0.5f, .scale_floor = 1e-3f};
  for (int i = 0; i < 3; ++i) whole.step(s), cut.step(s);
  test::expect_near(cut.v, whole.v, 1e-6);
  test::expect_near(cut.squares, whole.squares, 1e-6);
  test::expect_near(cut.tensors[0].param, whole.tensors[0].param, 1e-6);

  Tensor sum = zeros_like(whole.means);
  for (const MatrixBlock& piece : pieces) {  // one rank each
    Stacks rank({shape});
    std::int64_t begin = 0;
    for (const MatrixBlock& before : pieces) {
      if (&before == &piece) break;
      begin += before.numel();
    }
    rank.tensors[0].grad = cut.tensors[0].grad.view({shape.numel()}).rows(begin, begin + piece.numel());
    rank.tensors[0].blocks = {&piece, 1};
    k.square_means(rank.means, rank.tensors, floats({1}, {1}));
    k.add(sum, rank.means);
  }
  k.square_means(whole.means, whole.tensors, floats({1}, {1}));
  test::expect_near(sum, whole.means, 1e-6);
}

TEST(Adafactor, GivesTheSameBitsOnAnyThreads) {
  test::expect_same_bits_on_any_threads([]() -> std::vector<Tensor> {
    Stacks stacks({{700, 130}, {4, 90, 120}, {50'000}});
    for (std::size_t i = 0; i < 3; ++i) stacks.tensors[i].grad = random(stacks.shapes[i], unsigned(i));
    for (int i = 0; i < 2; ++i) stacks.step({.lr = 0.1f, .beta2 = 0.5f, .scale_floor = 1e-3f});
    return {stacks.v, stacks.squares, stacks.tensors[0].param, stacks.tensors[1].param, stacks.tensors[2].param};
  });
}

TEST(Adafactor, WritesTheComputeCopyAnew) {
  for (const Shape& shape : {Shape{96, 64}, Shape{3, 40, 48}}) {
    Stacks stacks({shape});
    Weight weight = make_weight(stacks.tensors[0].param, DType::bf16);
    const Weight stale = make_weight(stacks.tensors[0].param, DType::bf16);  // before the step
    stacks.tensors[0].grad = random(shape, 2);
    stacks.tensors[0].weight = &weight;
    stacks.step({.lr = 0.1f, .beta2 = 0});
    const Weight expected = make_weight(stacks.tensors[0].param, DType::bf16);
    const auto same = [](const Tensor& a, const Tensor& b) {
      return bool(a) == bool(b) && (!a || std::memcmp(a.bytes(), b.bytes(), a.size_in_bytes()) == 0);
    };
    EXPECT_TRUE(same(weight.plain, expected.plain) && same(weight.forward, expected.forward) &&
                same(weight.backward, expected.backward));
    EXPECT_FALSE(same(stale.plain, expected.plain) && same(stale.forward, expected.forward));
  }
}

TEST(Adafactor, AScaleThatIsNotFiniteChangesNothing) {
  for (const float scale : {std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
    Stacks stacks({{16, 16}, {9}}, true), before({{16, 16}, {9}}, true);
    for (std::size_t i = 0; i < 2; ++i) stacks.tensors[i].grad = random(stacks.shapes[i], 4);
    stacks.step({.lr = 0.1f, .beta1 = 0.5f, .beta2 = 0.5f}, scale);
    test::expect_same_bits(stacks.v, before.v);
    for (std::size_t i = 0; i < 2; ++i) {
      test::expect_same_bits(stacks.tensors[i].param, before.tensors[i].param);
      test::expect_same_bits(stacks.tensors[i].m, before.tensors[i].m);
    }
  }
}

}  // namespace
}  // namespace switchyard
