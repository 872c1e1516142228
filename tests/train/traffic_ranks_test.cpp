#include "dist/traffic.h"

#include <gtest/gtest.h>

#include <map>

#include "ranks.h"
#include "train/learner.h"
#include "train/small_run.h"

namespace switchyard {
namespace {

using Sums = std::map<std::string, std::int64_t>;  // "tensor all_gather" -> bytes that all ranks together sent

Sums sent_by_all(const Mesh& mesh, ProcessGroup& world) {
  std::string mine;
  for (const GroupTraffic& row : traffic_of(mesh))
    mine += text(row.group, ' ', name_of(row.collective), ' ', row.traffic.bytes, '\n');
  Sums sums;
  for (const std::string& theirs : all_gather_text(world, mine)) {
    std::istringstream in(theirs);
    std::string group, collective;
    for (std::int64_t bytes; in >> group >> collective >> bytes;)
      if (bytes > 0) sums[group + ' ' + collective] += bytes;
  }
  return sums;
}

// docs/communication.md, "A training step", for one dense and one MoE block in f32 and one micro-batch.
Sums expected(const Config& c, Learner& learner, ProcessGroup& world) {
  constexpr std::int64_t kFloat = 4;
  const Mesh& mesh = learner.mesh();
  const std::int64_t ranks = world.size(), t = mesh.tensor->size(), e = mesh.experts->size();
  const std::int64_t tokens = c.train.micro_batch * c.train.seq_len, rows = tokens / t, width = c.model.d_model;

  // Of a group of g that all reduces n numbers, and the world has ranks / g such groups.
  const auto all_reduce = [&](std::int64_t g, std::int64_t n) { return ranks / g * 2 * (g - 1) * n * kFloat; };

  Sums sums;
  // attention twice and the dense ffn, each way a gather and a sum of rows; the embedding, and the head
  const std::int64_t row_moves = ranks * (t - 1) * (2 * 3 + 2) * rows * width * kFloat;
  sums["tensor reduce_scatter"] = row_moves;
  sums["tensor all_gather"] = row_moves + ranks * (t - 1) * tokens * 4 * kFloat;  // four numbers a token for the loss
  // padded: of each group of tokens every expert gets its capacity; there and back, forward and backward
  const std::int64_t etp = c.parallel.expert_tensor, local = c.moe.experts * etp / e;
  const std::int64_t capacity = c.moe.top_k * c.moe.group_size / c.moe.experts,
                     owned = rows / c.moe.group_size * capacity;
  sums["experts all_to_all"] = 4 * ranks * (e - 1) * local * owned * width * kFloat;

  const std::int64_t metrics = 1 + 5 + c.moe.experts, norm = 1;
  sums["tokens all_reduce"] = all_reduce(ranks, norm + metrics);
  const std::map<Replicas, const char*> names{
      {Replicas::data, "data"}, {Replicas::tokens, "tokens"}, {Replicas::expert_data, "expert_data"}};
  if (!c.parallel.shard_optimizer) {
    // One bucket of each kind; parameters begin at multiples of 16 numbers in it, the last one first.
    std::map<std::pair<Replicas, Reads>, std::int64_t> buckets;
    const Parameters& parameters = learner.model().parameters();
    for (auto p = parameters.rbegin(); p != parameters.rend(); ++p) {
      std::int64_t& n = buckets[{p->replicas, p->reads}];
      n = (n + 15) / 16 * 16 + p->variable.value().numel();
    }
    for (const auto& [kind, n] : buckets) {
      const std::int64_t holders = kind.first == Replicas::data     ? mesh.data->size()
                                   : kind.first == Replicas::tokens ? ranks
                                                                    : mesh.expert_data->size();
      sums[text(names.at(kind.first), " all_reduce")] += all_reduce(holders, n);
    }
  } else {  // what is sent to owners, and comes back from them, is padded to whole shares
    const Shards alike(learner.model().parameters(), learner.mesh(), 8 << 20, Masters::whole, DType::f32);
    for (const Bucket& bucket : alike.buckets()) {
      const char* name = names.at(learner.model().parameters()[bucket.places[0].parameter].replicas);
      const std::int64_t g = bucket.group->size(), moved = ranks * (g - 1) * bucket.share() * kFloat;
      sums[text(name, " reduce_scatter")] += moved;
      sums[text(name, " all_gather")] += moved;
    }
  }
  std::erase_if(sums, [](const auto& sum) { return sum.second == 0; });
  return sums;
}

TEST(Traffic, OfATrainingStepEqualsTheClosedFormulas) {
  test::on_ranks({1, 2, 4}, [](ProcessGroup& world) {
    const test::RunDir dir("traffic", world);
    const int ranks = world.size();
    for (const auto& [tensor, expert, expert_tensor] :
         {std::tuple{1, 1, 1}, {1, 2, 1}, {1, 4, 1}, {2, 1, 1}, {2, 2, 1}, {2, 1, 2}, {2, 2, 2}, {1, 2, 2}}) {
      if (ranks % tensor != 0 || ranks % (expert * expert_tensor) != 0) continue;
      for (const bool shards : {false, true}) {
        Config config = dir.config(ranks, 1);
        config.moe.group_size = 4;
        config.moe.dispatch = Dispatch::padded;
        config.parallel = {.data = ranks / tensor,
                           .tensor = tensor,
                           .expert = expert,
                           .expert_tensor = expert_tensor,
                           .shard_optimizer = shards};
        config.train.micro_batch = config.train.global_batch / config.parallel.data;
        Learner learner(config, world);
        learner.step(0);
        EXPECT_EQ(sent_by_all(learner.mesh(), world), expected(config, learner, world))
            << describe(Layout(config.parallel, ranks)) << (shards ? ", sharded" : "");
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
