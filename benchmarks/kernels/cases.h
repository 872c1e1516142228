#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tensor/kernels.h"

// What kernel_bench times: every row of the kernel table, at one or a few shapes and types each.
namespace switchyard::bench {

// What bounds a row, and so what it is measured against: the device's own copy, its largest products, or nothing but
// the time that any launch takes.
enum class Bound { memory, bf16, f32, latency };
constexpr const char* name_of(Bound bound) {
  constexpr const char* names[] = {"memory", "bf16", "f32", "latency"};
  return names[static_cast<int>(bound)];
}
constexpr Bound product_of(DType dtype) { return dtype == DType::bf16 ? Bound::bf16 : Bound::f32; }

// One call of a row on tensors of its own.
struct Case {
  std::string shape;
  Bound bound;
  // Bytes that must travel however the row is written: each input read once and each output written once, and what is
  // read by index as often as the index says. Or FLOPs of its products.
  double work;
  std::string formula;  // of the work; the letters are those of the shape
  std::function<void()> run;
};

struct Recipe {
  const char* row;
  std::string variant;
  std::function<Case()> make;  // allocates
};
using Recipes = std::vector<Recipe>;

// Where the rows run and how large they are: rows of width `dim` for `tokens` tokens, other shapes in proportion.
struct Scale {
  Device device;
  std::int64_t tokens;
  static constexpr std::int64_t dim = 1024;

  const Kernels& k() const { return kernels(device); }
  bool large() const { return tokens >= 8192; }  // else small enough for a test on the CPU
  std::int64_t ff() const { return large() ? 2816 : 96; }
  std::int64_t words() const { return large() ? 50304 : 1000; }
};

// Bytes of a weight's bf16 compute copies.
double copies_of(const Kernels& k, Shape shape);

void add_memory(Recipes& recipes, Scale scale);
void add_products(Recipes& recipes, Scale scale);
void add_norms(Recipes& recipes, Scale scale);
void add_attention(Recipes& recipes, Scale scale);
void add_activations(Recipes& recipes, Scale scale);
void add_losses(Recipes& recipes, Scale scale);
void add_optimizer(Recipes& recipes, Scale scale);
void add_grouped(Recipes& recipes, Scale scale);
void add_rows(Recipes& recipes, Scale scale);
void add_router(Recipes& recipes, Scale scale);
void add_placement(Recipes& recipes, Scale scale);
void add_other_routers(Recipes& recipes, Scale scale);

// All of them. Throws when a row of the table is missing.
Recipes kernel_recipes(Scale scale);
// A device-to-device copy of 4096 bytes a token, and products of n x n matrices in bf16 and f32.
Recipes ceiling_recipes(Scale scale, std::int64_t n);

}  // namespace switchyard::bench
