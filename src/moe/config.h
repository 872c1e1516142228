#pragma once

#include <cstdint>
#include <vector>

namespace switchyard {

enum class BalanceCounts { first, all };           // which choices count as load: Switch and GShard, or Mixtral
enum class Dispatch { automatic, exact, padded };  // which rows travel to the experts
enum class Overlap { automatic, on, off };         // whether rows travel while experts compute
enum class BalanceScope { group, micro_batch };    // over which tokens load and probability are averaged

// Experts, their router, and which blocks have them.
struct MoeConfig {
  std::int64_t experts = 8;
  std::int64_t top_k = 2;
  std::int64_t d_ff = 0;  // 0: as the dense blocks

  // placement: an explicit list wins over the rest
  std::vector<std::int64_t> layers{};
  std::int64_t every = 2;
  std::int64_t first_dense = 0;

  bool renormalise = true;
  double capacity_factor = 1.25;  // 0: dropless
  std::int64_t group_size = 0;    // 0: a sequence
  Dispatch dispatch = Dispatch::automatic;
  Overlap overlap = Overlap::automatic;
  double balance_loss = 0.01;
  BalanceCounts balance_counts = BalanceCounts::first;
  BalanceScope balance_scope = BalanceScope::group;
  double z_loss = 0.001;
  double router_init_scale = 0.1;

  template <class V>
  void describe(V& v) {
    v.field("experts", experts, "experts of an MoE block; 0 makes the model dense").between(0, 65536);
    v.field("top_k", top_k, "experts that each token goes to").between(1, 1024);
    v.field("d_ff", d_ff, "feed-forward width of an expert; 0 means model.d_ff").between(0, 1 << 24);
    v.field("layers", layers, "the MoE blocks, counted from 0; empty means by `every` and `first_dense`");
    v.field("every", every, "every n-th block is MoE: 2 gives dense, MoE, dense, MoE (GLaM)").between(1, 4096);
    v.field("first_dense", first_dense, "this many blocks from the first on stay dense").between(0, 4096);
    v.field("renormalise", renormalise, "divide the chosen weights by their sum (GShard, Mixtral); off for Switch");
    v.field("capacity_factor", capacity_factor,
            "an expert takes ceil(factor * top_k * group / experts) rows of a group; 0 drops nothing")
        .between(0, 1024);
    v.field("group_size", group_size, "tokens of a routing group; divides the sequence, 0 means a sequence")
        .between(0, 1 << 24);
    v.choice(
        "dispatch", dispatch,
        "rows that travel to the experts: exact, those that were kept, whose numbers the host must read; padded, as "
        "many as the capacity allows, so that it need not; auto pads on a GPU",
        {{"auto", Dispatch::automatic}, {"exact", Dispatch::exact}, {"padded", Dispatch::padded}});
    v.choice(
        "overlap", overlap,
        "rows travel to experts and back in two halves, one while experts compute on the other, where a rank has an "
        "even number of whole routing groups; auto: where they travel between GPUs through NCCL",
        {{"auto", Overlap::automatic}, {"on", Overlap::on}, {"off", Overlap::off}});
    v.field("balance_loss", balance_loss, "coefficient of the load-balancing loss of each MoE block").between(0, 100);
    v.choice("balance_counts", balance_counts, "choices that count as load: first (Switch, GShard), all (Mixtral)",
             {{"first", BalanceCounts::first}, {"all", BalanceCounts::all}});
    v.choice("balance_scope", balance_scope,
             "tokens that one balance loss averages: a routing group, or a micro-batch of all ranks",
             {{"group", BalanceScope::group}, {"micro_batch", BalanceScope::micro_batch}});
    v.field("z_loss", z_loss, "coefficient of the router z-loss (ST-MoE: 0.001)").between(0, 100);
    v.field("router_init_scale", router_init_scale,
            "router weights start at a truncated normal of deviation sqrt(scale / d_model) (Switch: 0.1)")
        .between(0, 10);
  }
};

}  // namespace switchyard
