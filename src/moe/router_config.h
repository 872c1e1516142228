#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard {

// Published routers, by name. docs/routers.md says what each is and where it comes from.
enum class RouterKind {
  top_k,
  switch_top_1,
  gshard,
  glam,
  noisy_top_k,
  mixtral,
  st_moe,
  expert_choice,
  soft,
  deepseek_v2,
  deepseek_v3,
  batch_prioritised,
  hash
};
enum class Scoring { softmax, sigmoid, hash };
enum class Choosing { tokens, experts };                 // who chooses whom
enum class Admission { token, priority };                // who goes first where an expert has not room for all
enum class BalanceCounts { first, all, mean };           // which choices count as load
enum class BalanceScope { group, micro_batch, global };  // over which tokens the losses average

// Who goes where, and with what weight. Its kind gives every other key its default (router_preset).
struct RouterConfig {
  RouterKind kind = RouterKind::top_k;

  // scores
  Scoring scores = Scoring::softmax;
  double init_scale = 0.1;
  double jitter = 0;
  bool noise = false;

  // choices
  Choosing choice = Choosing::tokens;
  std::int64_t top_k = 2;  // 0: all
  bool bias = false;
  double bias_rate = 0.001;
  std::int64_t expert_groups = 1;
  std::int64_t groups_met = 0;  // 0: all
  std::int64_t group_best = 1;
  double second_threshold = 0;

  // weights
  bool renormalise = true;
  double weight_scale = 1;

  // room
  double capacity_factor = 1.25;  // 0: dropless
  std::int64_t group_size = 0;    // 0: a sequence
  Admission admission = Admission::token;
  std::int64_t expert_cap = 0;  // 0: none
  double device_capacity = 0;   // 0: none
  double spared_groups = 0.1;
  bool allow_future_tokens = false;

  // losses
  double balance_loss = 0.01;
  BalanceCounts balance_counts = BalanceCounts::first;
  BalanceScope balance_scope = BalanceScope::group;
  double device_loss = 0;
  double communication_loss = 0;
  double importance_loss = 0;
  double load_loss = 0;
  double z_loss = 0.001;

  template <class V>
  void describe(V& v) {
    v.choice("kind", kind, "a published router: the defaults of all other keys (docs/routers.md)",
             {{"top_k", RouterKind::top_k},
              {"switch", RouterKind::switch_top_1},
              {"gshard", RouterKind::gshard},
              {"glam", RouterKind::glam},
              {"noisy_top_k", RouterKind::noisy_top_k},
              {"mixtral", RouterKind::mixtral},
              {"st_moe", RouterKind::st_moe},
              {"expert_choice", RouterKind::expert_choice},
              {"soft", RouterKind::soft},
              {"deepseek_v2", RouterKind::deepseek_v2},
              {"deepseek_v3", RouterKind::deepseek_v3},
              {"batch_prioritised", RouterKind::batch_prioritised},
              {"hash", RouterKind::hash}});
    v.choice("scores", scores, "what a token's logits become, or a hash of its id, which is not trained",
             {{"softmax", Scoring::softmax}, {"sigmoid", Scoring::sigmoid}, {"hash", Scoring::hash}});
    v.field("init_scale", init_scale,
            "router weights start at a truncated normal of deviation sqrt(scale / d_model) (Switch: 0.1)")
        .between(0, 10);
    v.field("jitter", jitter, "training multiplies the router's input by uniform numbers in 1 - jitter to 1 + jitter")
        .between(0, 0.999);
    v.field("noise", noise, "training adds normal noise of a learnt deviation to the logits (Shazeer)");
    v.choice("choice", choice, "tokens choose experts, or experts choose tokens (expert choice)",
             {{"tokens", Choosing::tokens}, {"experts", Choosing::experts}});
    v.field("top_k", top_k,
            "experts that each token goes to; where experts choose, top_k * capacity_factor on average; 0 means all")
        .between(0, 65536);
    v.field("bias", bias, "add to the scores that decide a bias that balances the load (DeepSeek-V3)");
    v.field("bias_rate", bias_rate, "by which the bias moves each step; 0 freezes it").between(0, 1);
    v.field("expert_groups", expert_groups, "equal groups of neighbouring experts (devices or nodes)")
        .between(1, 65536);
    v.field("groups_met", groups_met, "groups that a token may go to; 0 means all").between(0, 65536);
    v.field("group_best", group_best, "best scores of a group that decide whether a token may go to it")
        .between(1, 65536);
    v.field("second_threshold", second_threshold,
            "training keeps each choice but the first with probability weight / threshold (GShard: 0.5); 0 keeps all")
        .between(0, 1);
    v.field("renormalise", renormalise, "divide the chosen weights by their sum (GShard, Mixtral); off for Switch");
    v.field("weight_scale", weight_scale, "factor of the weights (DeepSeek-V3: 2.5)").between(0, 1000);
    v.field("capacity_factor", capacity_factor,
            "an expert takes ceil(factor * top_k * group / experts) rows of a group; 0 drops nothing")
        .between(0, 1024);
    v.field("group_size", group_size, "tokens of a routing group; divides the sequence, 0 means a sequence")
        .between(0, 1 << 24);
    v.choice("admission", admission,
             "who finds room in an expert, first choices before second: in token order, or the surest tokens first",
             {{"token", Admission::token}, {"priority", Admission::priority}});
    v.field("expert_cap", expert_cap, "experts that a token may have where experts choose; 0 sets no cap")
        .between(0, 65536);
    v.field("device_capacity", device_capacity,
            "each of expert_groups takes ceil(factor * top_k * group / expert_groups) rows of a group, and training "
            "drops choices of lower score beyond (DeepSeek-V2: 1); 0 drops nothing")
        .between(0, 1024);
    v.field("spared_groups", spared_groups, "share of routing groups that device_capacity never drops of (DeepSeek-V2)")
        .between(0, 1);
    v.field("allow_future_tokens", allow_future_tokens,
            "let later tokens of a sequence decide where earlier ones go, which generation cannot do");
    v.field("balance_loss", balance_loss, "coefficient of the load-balancing loss of each MoE block").between(0, 100);
    v.choice("balance_counts", balance_counts,
             "choices that count as load: first (Switch, GShard), all (Mixtral), or their mean (DeepSeek)",
             {{"first", BalanceCounts::first}, {"all", BalanceCounts::all}, {"mean", BalanceCounts::mean}});
    v.choice(
        "balance_scope", balance_scope,
        "tokens that one loss averages: a routing group, a micro-batch of all ranks, or the global batch so far",
        {{"group", BalanceScope::group}, {"micro_batch", BalanceScope::micro_batch}, {"global", BalanceScope::global}});
    v.field("device_loss", device_loss, "coefficient of the balance loss over expert_groups (DeepSeek-V2: 0.05)")
        .between(0, 100);
    v.field("communication_loss", communication_loss,
            "coefficient of the loss that balances what expert_groups receive (DeepSeek-V2: 0.02)")
        .between(0, 100);
    v.field("importance_loss", importance_loss,
            "coefficient of the squared variation of the experts' weights (Shazeer)")
        .between(0, 100);
    v.field("load_loss", load_loss, "coefficient of the squared variation of the experts' expected load (Shazeer)")
        .between(0, 100);
    v.field("z_loss", z_loss, "coefficient of the router z-loss (ST-MoE: 0.001)").between(0, 100);
  }
};

// The router of that kind as published, sizes aside.
RouterConfig router_preset(RouterKind kind);
// The keys without whose published values it would be another router, by name; the others are free.
std::vector<std::string> fixed_keys(RouterKind kind);

}  // namespace switchyard
