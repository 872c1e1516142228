#include <algorithm>

#include "kernels/cases.h"
#include "kernels/random.h"

namespace switchyard::bench {
namespace {

constexpr DType kFloats[] = {DType::bf16, DType::f32};
constexpr DType kF32 = DType::f32, kBf16 = DType::bf16;

// What the rows of an Adafactor step work on, each tensor one matrix.
struct Factored {
  std::vector<AdafactorTensors> tensors;
  std::vector<Matrices> matrices;
  std::vector<MatrixBlock> blocks;
  Tensor v, factors, squares, one;

  Factored(const std::vector<Shape>& shapes, Device device) {
    std::int64_t numbers = 0;
    for (const Shape& shape : shapes) {
      matrices.push_back({.count = 1,
                          .rows = shape[0],
                          .columns = shape[1],
                          .row = numbers,
                          .column = numbers + shape[0],
                          .first = std::ssize(matrices)});
      blocks.push_back({.matrix = 0, .matrices = 1, .line = 0, .lines = shape[0], .column = 0, .width = shape[1]});
      tensors.push_back({.param = random(shape, kF32, device),
                         .m = {},
                         .grad = random(shape, kF32, device),
                         .weight_decay = 0.1f,
                         .matrices = matrices.back()});
      numbers += shape[0] + shape[1];
    }
    v = random({numbers}, kF32, device, 0.1, 1);
    factors = random({numbers}, kF32, device, 0.1, 1);
    squares = random({std::ssize(matrices), 2}, kF32, device, 0.1, 1);
    one = random({1}, kF32, device, 0.9, 1);
  }
  std::span<const AdafactorTensors> held() {
    for (std::size_t i = 0; i < blocks.size(); ++i) tensors[i].blocks = {&blocks[i], 1};
    return tensors;
  }
};

void add_adafactor(Recipes& recipes, Scale s, const std::vector<Shape>& shapes, const std::string& shape) {
  std::int64_t n = 0, numbers = 0;
  for (const Shape& each : shapes) {
    n += each.numel();
    numbers += each[0] + each[1];
  }
  const auto add = [&](const char* name, std::int64_t bytes, const char* formula, auto row) {
    recipes.push_back({name, "f32 alone", [=] {
                         return Case{shape, Bound::memory, static_cast<double>(bytes), formula,
                                     [&k = s.k(), row, x = Factored(shapes, s.device)]() mutable { row(k, x); }};
                       }});
  };
  static constexpr AdafactorStep kStep{.lr = 1e-6f, .scale_floor = 1e-3f};
  add("square_means", 4 * n, "4 n", [](const Kernels& k, Factored& x) { k.square_means(x.factors, x.held(), x.one); });
  add("moment_factors", 16 * numbers, "16 (rows + columns)",
      [](const Kernels& k, Factored& x) { k.moment_factors(x.v, x.factors, x.matrices, kStep, x.one); });
  add("update_squares", 8 * n, "8 n",
      [](const Kernels& k, Factored& x) { k.update_squares(x.squares, x.held(), x.factors, x.one); });
  add("adafactor", 12 * n, "12 n",
      [](const Kernels& k, Factored& x) { k.adafactor(x.held(), kStep, x.factors, x.squares, x.one); });
}

}  // namespace

// A model's worth of tensors: a few large matrices, and many of one row.
void add_optimizer(Recipes& recipes, Scale s) {
  std::vector<Shape> shapes(32, Shape{std::max<std::int64_t>(2, s.tokens / 32), s.dim});
  shapes.insert(shapes.end(), 128, Shape{1, s.dim});
  std::int64_t n = 0;
  for (const Shape& shape : shapes) n += shape.numel();
  const std::string shape = text("n ", n, " in ", shapes.size(), " tensors");
  for (const DType dtype : kFloats)
    recipes.push_back({"adamw", dtype == kBf16 ? "with bf16 copies of matrices" : "f32 alone", [=] {
                         std::vector<AdamWTensors> tensors;
                         std::vector<Weight> weights;
                         double copies = 0;
                         for (const Shape& shape : shapes) {
                           tensors.push_back({.param = random(shape, kF32, s.device),
                                              .m = random(shape, kF32, s.device, -0.01, 0.01),
                                              .v = random(shape, kF32, s.device, 1e-4, 1e-2),
                                              .grad = random(shape, kF32, s.device),
                                              .weight_decay = 0.1f});
                           if (dtype == kF32 || shape[0] == 1) continue;
                           weights.push_back(make_weight(tensors.back().param, kBf16));
                           copies += copies_of(s.k(), shape);
                         }
                         return Case{
                             shape, Bound::memory, 28 * static_cast<double>(n) + copies,
                             copies > 0 ? text("28 n + copies of ", copies, " bytes") : "28 n",
                             [&k = s.k(), tensors, weights, one = random({1}, kF32, s.device, 0.9, 1)]() mutable {
                               for (std::size_t i = 0; i < weights.size(); ++i) tensors[i].weight = &weights[i];
                               k.adamw(tensors, {.lr = 1e-6f, .bias1 = 0.5f, .bias2 = 0.5f}, one);
                             }};
                       }});
  add_adafactor(recipes, s, shapes, shape);
  recipes.push_back(
      {"sum_squares", "f32", [=] {
         std::vector<Tensor> xs;
         for (const Shape& each : shapes) xs.push_back(random(each, kF32, s.device));
         return Case{shape, Bound::memory, 4 * static_cast<double>(n), "4 n",
                     [&k = s.k(), y = Tensor::empty({1}, kF32, s.device), xs]() mutable { k.sum_squares(y, xs); }};
       }});
  recipes.push_back({"uniform", "f32", [=] {
                       return Case{text("n ", n), Bound::memory, 4 * static_cast<double>(n), "4 n",
                                   [&k = s.k(), y = Tensor::empty({n}, kF32, s.device)]() mutable {
                                     k.uniform(y, {1, 2}, 0);
                                   }};
                     }});
  recipes.push_back(
      {"clip_factor", "f32", [=] {
         return Case{"n 2", Bound::latency, 12, "4 n + 4",
                     [&k = s.k(), y = Tensor::empty({1}, kF32, s.device),
                      squares = random({2}, kF32, s.device, 0.5, 2)]() mutable { k.clip_factor(y, squares, 1.0f); }};
       }});
}

Recipes ceiling_recipes(Scale s, std::int64_t n) {
  Recipes recipes;
  const std::int64_t elements = s.tokens * s.dim;
  recipes.push_back({"copy", "f32, device to device", [=] {
                       return Case{text("n ", elements), Bound::memory, 8 * static_cast<double>(elements), "8 n",
                                   [&k = s.k(), y = Tensor::empty({elements}, kF32, s.device),
                                    x = random({elements}, kF32, s.device)]() mutable { k.copy(y, x); }};
                     }});
  for (const DType dtype : kFloats)
    recipes.push_back({"matmul", text(dtype, ", c = a b^T"), [=] {
                         const double cube = static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n);
                         return Case{
                             text("n ", n), product_of(dtype), 2 * cube, "2 n^3",
                             [&k = s.k(), c = Tensor::empty({n, n}, dtype, s.device),
                              a = random({n, n}, dtype, s.device), b = random({n, n}, dtype, s.device)]() mutable {
                               k.matmul(c, a, b, Trans::no, Trans::yes, Into::overwrite);
                             }};
                       }});
  return recipes;
}

}  // namespace switchyard::bench
