#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "dist/gradients.h"
#include "grad_check.h"
#include "model/pipeline.h"
#include "model/placement.h"
#include "slices.h"

// A small model's losses and gradients on a world of any kind beside those of one rank.
namespace switchyard::test {

// Dense, MoE, dense, MoE; grouped queries; drops on; routers that keep expert 2 empty and others crowded.
struct SmallModel {
  ModelConfig model = resolved(ModelConfig{.vocab_size = 31,
                                           .d_model = 16,
                                           .n_layers = 4,
                                           .n_heads = 4,
                                           .n_kv_heads = 2,
                                           .d_ff = 24,
                                           .tied_embeddings = false,
                                           .init_std = 0.3});
  MoeConfig moe = resolved(
      MoeConfig{.experts = 8, .router = {.top_k = 2, .capacity_factor = 0.8, .balance_loss = 0.1, .z_loss = 0.01}},
      model, kSeq);
  Recompute recompute = Recompute::none;
  std::int64_t micro_batches = 1;

  static constexpr std::int64_t kSeq = 8, kBatch = 4;
};

struct ModelRun {
  std::optional<double> loss;  // with what routers add, where one stage has them all
  double lm_loss = 0;
  Parameters parameters;             // with gradients summed over the ranks
  std::vector<std::int64_t> kept_E;  // over all MoE blocks and ranks
};

// Experts 0 and 1 get opposite weights, and so do 3 and 4, so that two logits are always positive; expert 2 gets zeros
// and is never among the best two.
inline void skew_routers(Parameters& parameters) {
  for (Parameter& p : parameters) {
    if (!p.name.ends_with(".mlp.gate.weight")) continue;
    float* w = p.variable.value().data<float>();
    const std::int64_t width = p.variable.shape()[1];
    for (std::int64_t d = 0; d < width; ++d) {
      w[0 * width + d] *= 4;
      w[1 * width + d] = -w[0 * width + d];
      w[2 * width + d] = 0;
      w[4 * width + d] = -w[3 * width + d];
    }
  }
}

inline ModelRun run_model(const SmallModel& small, ProcessGroup& world, const ParallelConfig& parallel = {}) {
  Mesh mesh(parallel, world);
  Transformer model(small.model, small.moe, DType::f32, 7, Device{}, mesh,
                    cut_into_stages(small.model, small.moe, SmallModel::kSeq, mesh.stages()));
  skew_routers(model.parameters());
  constexpr std::int64_t seq = SmallModel::kSeq, batch = SmallModel::kBatch;
  std::vector<std::int32_t> stream;
  for (std::int64_t i = 0; i <= batch * seq; ++i)
    stream.push_back(std::int32_t(philox({5, 0}, std::uint64_t(i))[0] % 31));

  const std::int64_t mine = batch / mesh.data->size() / small.micro_batches;
  Tensor losses = Tensor::zeros({2}, DType::f32, Device{});
  Tensor kept = Tensor::zeros({small.moe.experts}, DType::i32, Device{});
  const auto micro_batch = [&](std::int64_t part) -> MicroBatch {
    const std::int64_t begin = (part * mesh.data->size() + mesh.data->rank()) * mine * seq, end = begin + mine * seq;
    const std::span<const std::int32_t> all(stream);
    return {Tensor::of(all.subspan(std::size_t(begin), std::size_t(end - begin)), {end - begin}, Device{}),
            Tensor::of(all.subspan(std::size_t(begin) + 1, std::size_t(end - begin)), {end - begin}, Device{}),
            {.batch = mine, .seq = seq, .share = 1.0f / (batch * seq), .recompute = small.recompute}};
  };
  const auto told = [&](const ModelResult& result) {
    if (mesh.is_last()) losses.data<float>()[0] += result.out.value().data<float>()[0];
    losses.data<float>()[1] += result.lm_loss_1.data<float>()[0];
    for (const RoutingStats& block : result.stats)
      for (std::int64_t i = 0; i < block.kept_PE.numel(); ++i)
        kept.data<std::int32_t>()[i % small.moe.experts] += block.kept_PE.data<std::int32_t>()[i];
  };
  Pipeline(model, mesh)
      .step({.micro_batches = small.micro_batches, .batch = micro_batch, .forward = told, .last_backward = [] {}});
  world.all_reduce(losses, Reduce::sum);
  world.all_reduce(kept, Reduce::sum);
  sum_gradients(model.parameters(), mesh, 1 << 12);
  return {.loss = mesh.stages() == 1 ? std::optional<double>(losses.data<float>()[0]) : std::nullopt,
          .lm_loss = losses.data<float>()[1],
          .parameters = model.parameters(),
          .kept_E = {kept.data<std::int32_t>(), kept.data<std::int32_t>() + kept.numel()}};
}

// Losses and gradients agree to f32 rounding: sums of up to a few hundred terms in another order, through four blocks.
inline void expect_same_run(const ModelRun& part, const ModelRun& whole, double rounding = 2e-5) {
  if (part.loss) {
    EXPECT_NEAR(*part.loss, *whole.loss, rounding);
  }
  EXPECT_NEAR(part.lm_loss, whole.lm_loss, rounding);
  EXPECT_EQ(part.kept_E, whole.kept_E);
  for (const Parameter& p : part.parameters) {
    SCOPED_TRACE(p.name);
    const auto same = std::ranges::find(whole.parameters, p.name, &Parameter::name);
    ASSERT_NE(same, whole.parameters.end());
    expect_near(p.variable.value(), slice_of(same->variable.value(), p), 0);
    expect_near(p.variable.grad(), slice_of(same->variable.grad(), p), rounding);
  }
}

// Two runs on the same layout, bit for bit.
inline void expect_same_bits(const ModelRun& a, const ModelRun& b) {
  EXPECT_EQ(a.loss, b.loss);
  for (std::size_t i = 0; i < a.parameters.size(); ++i) {
    const Tensor &x = a.parameters[i].variable.grad(), &y = b.parameters[i].variable.grad();
    EXPECT_EQ(std::memcmp(x.bytes(), y.bytes(), x.size_in_bytes()), 0) << a.parameters[i].name;
  }
}

// The check that runs on threads and under mpirun alike: this world beside one rank that does all the work.
inline void check_layout(ProcessGroup& world, const ParallelConfig& parallel, const SmallModel& small = {}) {
  const auto self = make_self_group();
  const ModelRun whole = run_model(small, *self);
  if (small.moe.experts > 0) {
    ASSERT_EQ(whole.kept_E[2], 0) << "expert 2 was to stay empty";
    std::int64_t kept = 0;
    for (const std::int64_t k : whole.kept_E) kept += k;
    ASSERT_LT(kept, 2 * small.moe.router.top_k * SmallModel::kBatch * SmallModel::kSeq)
        << "something was to be dropped";
  }
  expect_same_run(run_model(small, world, parallel), whole);
}

}  // namespace switchyard::test
