#include "dist/traffic.h"

#include <gtest/gtest.h>

#include <map>

#include "ranks.h"
#include "train/learner.h"
#include "train/small_run.h"

namespace switchyard {
namespace {

using Sums = std::map<std::string, std::int64_t>;  // "tensor all_gather" -> bytes that all ranks together sent

// What the ranks bring, added up.
Sums over_all(const Sums& mine, ProcessGroup& world) {
  std::string lines;
  for (const auto& [name, bytes] : mine) lines += text(name, ' ', bytes, '\n');
  Sums sums;
  for (const std::string& theirs : all_gather_text(world, lines)) {
    std::istringstream in(theirs);
    std::string group, collective;
    for (std::int64_t bytes; in >> group >> collective >> bytes;)
      if (bytes > 0) sums[group + ' ' + collective] += bytes;
  }
  return sums;
}

Sums sent_by_all(const Mesh& mesh, ProcessGroup& world) {
  Sums mine;
  for (const GroupTraffic& row : traffic_of(mesh))
    mine[text(row.group, ' ', name_of(row.collective))] = row.traffic.bytes;
  return over_all(mine, world);
}

// Of the rows that experts kept, one for each part of an expert on another rank.
std::int64_t rows_to_others(const Config& c, const StepSums& step, const ProcessGroup& experts) {
  const std::int64_t all = c.moe.experts, parts = c.parallel.expert_tensor, local = all * parts / experts.size();
  std::int64_t rows = 0;
  for (const auto& blocks : step.stats())
    for (const RoutingStats& block : blocks)
      for (std::int64_t i = 0; i < block.kept_PE.numel(); ++i) {
        const bool is_mine = i % all / local == experts.rank() / parts;
        rows += block.kept_PE.data<std::int32_t>()[i] * (parts - is_mine);
      }
  return rows;
}

// docs/communication.md, "A training step", for one dense and one MoE block in f32, on one stage or one each, and two
// micro-batches: what this rank sends, for a group's all-reduce its first rank in all's stead, and for the exchanges
// with experts all that its own rows and their gradients travel.
Sums expected(const Config& c, Learner& learner, const StepSums& step) {
  constexpr std::int64_t kFloat = 4;
  Mesh& mesh = learner.mesh();
  const std::int64_t t = mesh.tensor->size(), e = mesh.experts->size();
  const std::int64_t tokens = c.train.micro_batch * c.train.seq_len, rows = tokens / t, width = c.model.d_model;
  const std::int64_t times = c.train.global_batch / c.parallel.data / c.train.micro_batch;

  Sums sums;
  const auto add_all_reduce = [&](const char* name, const ProcessGroup& group, std::int64_t n) {
    if (group.rank() == 0) sums[text(name, " all_reduce")] += 2 * (group.size() - 1) * n * kFloat;
  };

  // attention and the dense ffn, each way a gather and a sum of rows; the embedding, and the head
  const std::int64_t attentions = mesh.stages() == 1 ? 2 : 1;
  const std::int64_t moves = 2 * attentions + (mesh.is_first() ? 2 + 1 : 0) + (mesh.is_last() ? 1 : 0);
  sums["tensor reduce_scatter"] = times * (t - 1) * moves * rows * width * kFloat;
  sums["tensor all_gather"] = sums["tensor reduce_scatter"];
  // four numbers a token for the loss
  if (mesh.is_last()) sums["tensor all_gather"] += times * (t - 1) * tokens * 4 * kFloat;
  // there and back, forward and backward; padded: of each group of tokens every expert gets its capacity; exact: what
  // was kept, and before that a count for each expert and part
  const std::int64_t etp = c.parallel.expert_tensor, local = c.moe.experts * etp / e;
  const std::int64_t capacity = c.moe.router.top_k * c.moe.router.group_size / c.moe.experts,
                     owned = rows / c.moe.router.group_size * capacity;
  const std::int64_t moved =
      c.moe.dispatch == Dispatch::padded ? times * (e - 1) * local * owned : rows_to_others(c, step, *mesh.experts);
  const std::int64_t counts = c.moe.dispatch == Dispatch::padded ? 0 : c.moe.overlap == Overlap::on ? 2 : 1;
  if (mesh.is_last()) sums["experts all_to_all"] = 4 * moved * width * kFloat + times * counts * (e - 1) * local * 4;
  // rows to the next stage, and their gradients back
  sums["next all_to_all"] = times * (mesh.next->size() - 1) * rows * width * kFloat;
  sums["previous all_to_all"] = times * (mesh.previous->size() - 1) * rows * width * kFloat;

  const std::int64_t metrics = 1 + 5 + c.moe.experts, norm = 1;
  add_all_reduce("world", *mesh.world, norm + metrics);
  const std::map<Replicas, std::pair<const char*, const ProcessGroup*>> holders{
      {Replicas::data, {"data", mesh.data.get()}},
      {Replicas::tokens, {"tokens", mesh.tokens.get()}},
      {Replicas::expert_data, {"expert_data", mesh.expert_data.get()}},
      {Replicas::ends, {"ends", mesh.ends.get()}}};
  if (!c.parallel.shard_optimizer) {
    // One bucket of each kind; parameters begin at multiples of 16 numbers in it, the last one first.
    std::map<std::pair<Replicas, Reads>, std::int64_t> buckets;
    const Parameters& parameters = learner.model().parameters();
    for (auto p = parameters.rbegin(); p != parameters.rend(); ++p) {
      std::int64_t& n = buckets[{p->replicas, p->reads}];
      n = (n + 15) / 16 * 16 + p->variable.value().numel();
    }
    for (const auto& [kind, n] : buckets)
      add_all_reduce(holders.at(kind.first).first, *holders.at(kind.first).second, n);
  } else {  // what is sent to owners, and comes back from them, is padded to whole shares
    const Shards alike(learner.model().parameters(), mesh, 8 << 20, Masters::whole, DType::f32);
    for (const Bucket& bucket : alike.buckets()) {
      const char* name = holders.at(learner.model().parameters()[bucket.places[0].parameter].replicas).first;
      const std::int64_t moved = (bucket.group->size() - 1) * bucket.share() * kFloat;
      sums[text(name, " reduce_scatter")] += moved;
      sums[text(name, " all_gather")] += moved;
    }
  }
  return sums;
}

TEST(Traffic, OfATrainingStepEqualsTheClosedFormulas) {
  test::on_ranks({1, 2, 4}, [](ProcessGroup& world) {
    const test::RunDir dir("traffic", world);
    const int ranks = world.size();
    for (const ParallelConfig& layout : {ParallelConfig{},
                                         {.expert = 2},
                                         {.expert = 4},
                                         {.tensor = 2},
                                         {.tensor = 2, .expert = 2},
                                         {.tensor = 2, .expert_tensor = 2},
                                         {.tensor = 2, .expert = 2, .expert_tensor = 2},
                                         {.expert = 2, .expert_tensor = 2},
                                         {.pipeline = 2},
                                         {.pipeline = 2, .expert = 2},
                                         {.pipeline = 2, .tensor = 2}}) {
      const int stage = ranks / layout.pipeline;
      if (stage == 0 || stage % layout.tensor != 0 || stage % (layout.expert * layout.expert_tensor) != 0) continue;
      for (const auto& [shards, dispatch, overlap] : {std::tuple{false, Dispatch::padded, Overlap::off},
                                                      {true, Dispatch::padded, Overlap::on},
                                                      {false, Dispatch::exact, Overlap::on},
                                                      {true, Dispatch::exact, Overlap::off}}) {
        Config config = dir.config(ranks, 1);
        config.moe.router.group_size = 4;
        config.moe.dispatch = dispatch;
        config.moe.overlap = overlap;
        config.parallel = layout;
        config.parallel.data = stage / layout.tensor;
        config.parallel.shard_optimizer = shards;
        config.train.micro_batch = config.train.global_batch / config.parallel.data / 2;
        Learner learner(config, world);
        const StepSums step = learner.backward(0);
        learner.update(0, step);
        if (learner.mesh().is_last()) {
          EXPECT_EQ(step.stats().at(0).at(0).kept_PE.dim(0), overlap == Overlap::on ? 2 : 1);
        }
        EXPECT_EQ(sent_by_all(learner.mesh(), world), over_all(expected(config, learner, step), world))
            << describe(Layout(config.parallel, ranks)) << (shards ? ", sharded" : "")
            << (dispatch == Dispatch::padded ? ", padded" : "");
      }
    }
  });
}

TEST(Traffic, SinceAMomentLeavesOutWhatCameBefore) {
  test::on_ranks({2}, [](ProcessGroup& world) {
    const Mesh mesh({.tensor = 2}, world);
    Tensor x = Tensor::zeros({8}, DType::f32, Device{});
    mesh.tensor->all_reduce(x, Reduce::sum);
    const auto before = traffic_of(mesh);
    EXPECT_TRUE(traffic_since(before, mesh).empty());
    mesh.tensor->all_reduce(x, Reduce::sum);
    mesh.tokens->broadcast(x, 0);
    const auto since = traffic_since(before, mesh);
    ASSERT_EQ(since.size(), 2u);
    EXPECT_EQ(since[0].traffic, (Traffic{.calls = 1, .bytes = 32}));
    EXPECT_EQ(since[1].collective, Collective::broadcast);
  });
}

}  // namespace
}  // namespace switchyard
