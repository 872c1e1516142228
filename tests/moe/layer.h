#pragma once

#include <gtest/gtest.h>

#include "dist/gradients.h"
#include "grad_check.h"
#include "moe/definition.h"
#include "moe/moe.h"

// A layer, its tokens and a pass, as the library and as the definition take them.
namespace switchyard::test {

inline constexpr std::int64_t kDim = 6, kWidth = 6, kTokensPerRank = 8, kStep = 3;

// The experts' weights and a router that never chooses expert 2 and mostly chooses expert 0: an empty expert, uneven
// loads and, with a capacity, drops.
struct Layer {
  ParameterMaker make{1, Device{}};
  Moe moe;
  Parameters parameters;

  Layer(const MoeConfig& config, Mesh& mesh)
      : moe(config, kDim, "moe", {.std = 0.5}, {.std = 0.5}, mesh, make), parameters(make.take()) {
    unsigned seed = 3;
    for (const char* name : {"gate.weight", "gate.noise_weight"}) {
      Variable* router = find(name);
      if (!router) continue;
      const Tensor values = random(router->shape(), seed++);
      std::copy_n(values.data<float>(), values.numel(), router->value().data<float>());
    }
    // Feature 0 of every token is 1 (see tokens()), so column 0 is a bias.
    if (Variable* router = find("gate.weight")) {
      router->value().data<float>()[0 * kDim] = 2;
      router->value().data<float>()[2 * kDim] = -50;
    }
    Tensor bias = moe.router().bias();
    for (std::int64_t e = 0; bias && e < bias.numel(); ++e) bias.data<float>()[e] = float(e % 3) * 0.2f - 0.1f;
  }

  Variable* find(const std::string& ending) {
    for (Parameter& p : parameters)
      if (p.name.ends_with(ending)) return &p.variable;
    return nullptr;
  }
};

inline Tensor tokens(std::int64_t count, std::int64_t first) {
  Tensor x = Tensor::empty({count, kDim}, DType::f32, Device{});
  const Tensor all = random({64, kDim}, 17);
  for (std::int64_t t = 0; t < count; ++t)
    for (std::int64_t d = 0; d < kDim; ++d)
      x.data<float>()[t * kDim + d] = d == 0 ? 1 : all.data<float>()[(first + t) * kDim + d];
  return x;
}

// Their ids, some of them equal.
inline std::vector<std::int32_t> ids(std::int64_t count, std::int64_t first) {
  std::vector<std::int32_t> ids;
  for (std::int64_t t = first; t < first + count; ++t) ids.push_back(std::int32_t(t * t % 23));
  return ids;
}

inline RouterPass pass_of(std::int64_t count, std::int64_t first, std::int64_t all) {
  return {.share = 1.0f / float(all), .step = kStep, .first_token = first, .token_T = ints({count}, ids(count, first))};
}

inline Rows rows_of(const Tensor& t, std::int64_t first, std::int64_t count) {
  const std::int64_t width = t.dim(-1);
  Rows rows;
  for (std::int64_t r = first; r < first + count; ++r) {
    rows.emplace_back();
    for (std::int64_t d = 0; d < width; ++d) rows.back().push_back(at(t, r * width + d));
  }
  return rows;
}

inline std::string up_name(const MoeConfig& config) {
  return *config.activation == Activation::relu ? "up_proj" : "gate_up_proj";
}

inline DefinedParameters defined(const MoeConfig& config, Layer& layer) {
  DefinedParameters w;
  if (const Variable* gate = layer.find("gate.weight")) w.gate = rows_of(gate->value(), 0, config.experts);
  if (const Variable* noise = layer.find("gate.noise_weight")) w.noise = rows_of(noise->value(), 0, config.experts);
  if (const Tensor bias = layer.moe.router().bias()) w.bias = rows_of(bias.view({1, config.experts}), 0, 1)[0];
  const std::string up = up_name(config);
  for (std::int64_t e = 0; e < config.experts; ++e) {
    const Tensor& up_EFD = layer.find("experts." + up)->value();
    w.up.push_back(rows_of(up_EFD, e * up_EFD.dim(1), up_EFD.dim(1)));
    w.down.push_back(rows_of(layer.find("moe.experts.down_proj")->value(), e * kDim, kDim));
  }
  if (config.shared_experts > 0) {
    const Tensor& up_FD = layer.find("shared_experts." + up + ".weight")->value();
    w.shared_up = rows_of(up_FD, 0, up_FD.dim(0));
    w.shared_down = rows_of(layer.find("shared_experts.down_proj.weight")->value(), 0, kDim);
  }
  return w;
}

inline DefinedPass defined_pass(std::size_t count, std::size_t micro_batches = 1) {
  return {.step = kStep, .token = ids(std::int64_t(count), 0), .micro_batches = micro_batches};
}

inline DefinedMoe definition(const MoeConfig& config, const Rows& x, const DefinedParameters& w) {
  return defined_moe(config, x, w, defined_pass(x.size()));
}

// <y, dy> + loss, so that one walk back reaches both. A hashed token has no loss.
inline Variable total(const Variable& y, const Tensor& dy, const Variable& loss) {
  const double sum = dot(y.value(), dy) + (loss ? at(loss.value(), 0) : 0);
  std::vector<Variable> inputs{y};
  if (loss) inputs.push_back(loss);
  return record("total", floats({1}, {float(sum)}), inputs, [dy, both = inputs.size() > 1](const Tensor& d) {
    return both ? Grads{dy, d} : Grads{dy};
  });
}

// What a pass and its way back give of this rank's share of all tokens.
struct Result {
  Tensor y, dx;
  double loss = 0;
  Parameters parameters;  // with gradients summed over the ranks
  std::int64_t choices = 0;
};

inline Result run(const MoeConfig& config, ProcessGroup& world, const ParallelConfig& parallel,
                  std::int64_t all_tokens) {
  Mesh mesh(parallel, world);
  Layer layer(config, mesh);
  const std::int64_t mine = all_tokens / world.size(), first = mine * world.rank();
  const Variable x(tokens(mine, first), true);
  const MoeResult result = layer.moe(x, pass_of(mine, first, all_tokens));
  const Tensor dy = random({all_tokens, kDim}, 23);
  total(result.y_TD, dy.rows(first, first + mine), result.loss_1).backward(floats({1}, {1}));
  sum_gradients(layer.parameters, mesh, 1 << 20);
  return {result.y_TD.value(), x.grad(), result.loss_1 ? at(result.loss_1.value(), 0) : 0, layer.parameters,
          result.stats.choices};
}

}  // namespace switchyard::test
