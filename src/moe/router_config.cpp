#include "moe/router_config.h"

namespace switchyard {
namespace {

// Softmax top-k without losses or drops: what the published routers have in common.
RouterConfig plain(RouterKind kind, std::int64_t top_k) {
  return {.kind = kind, .init_scale = 1, .top_k = top_k, .capacity_factor = 0, .balance_loss = 0, .z_loss = 0};
}

}  // namespace

RouterConfig router_preset(RouterKind kind) {
  RouterConfig c;
  switch (kind) {
    case RouterKind::top_k: break;
    case RouterKind::switch_top_1:
      c = plain(kind, 1);
      c.init_scale = 0.1;
      c.jitter = 0.01;
      c.renormalise = false;
      c.capacity_factor = 1.25;
      c.balance_loss = 0.01;
      break;
    case RouterKind::gshard:
    case RouterKind::glam:
      c = plain(kind, 2);
      c.second_threshold = kind == RouterKind::gshard ? 0.5 : 0;
      c.capacity_factor = 1;
      c.balance_loss = 0.01;
      break;
    case RouterKind::noisy_top_k:
      c = plain(kind, 4);
      c.init_scale = 0;
      c.noise = true;
      c.balance_scope = BalanceScope::micro_batch;
      c.importance_loss = c.load_loss = 0.1;
      break;
    case RouterKind::mixtral:
      c = plain(kind, 2);
      c.balance_loss = 0.001;
      c.balance_counts = BalanceCounts::all;
      c.balance_scope = BalanceScope::micro_batch;
      break;
    case RouterKind::st_moe:
      c = plain(kind, 2);
      c.init_scale = 0.1;
      c.capacity_factor = 1.25;
      c.balance_loss = 0.01;
      c.balance_counts = BalanceCounts::all;
      c.z_loss = 0.001;
      break;
    case RouterKind::expert_choice:
      c = plain(kind, 2);
      c.choice = Choosing::experts;
      c.renormalise = false;
      c.capacity_factor = 1;
      break;
    case RouterKind::soft:
      c = plain(kind, 0);
      c.renormalise = false;
      break;
    case RouterKind::deepseek_v2:
      c = plain(kind, 6);
      c.expert_groups = 8;
      c.groups_met = 3;
      c.renormalise = false;
      c.balance_loss = 0.003;
      c.balance_counts = BalanceCounts::mean;
      c.device_loss = 0.05;
      c.communication_loss = 0.02;
      break;
    case RouterKind::deepseek_v3:
      c = plain(kind, 8);
      c.scores = Scoring::sigmoid;
      c.bias = true;
      c.expert_groups = 8;
      c.groups_met = 4;
      c.group_best = 2;
      c.weight_scale = 2.5;
      c.balance_loss = 0.0001;
      c.balance_counts = BalanceCounts::mean;
      break;
    case RouterKind::batch_prioritised:
      c = plain(kind, 2);
      c.renormalise = false;
      c.capacity_factor = 1;
      c.admission = Admission::priority;
      c.balance_loss = 0.01;
      break;
    case RouterKind::hash:
      c = plain(kind, 1);
      c.init_scale = RouterConfig{}.init_scale;  // there is nothing to scale
      c.scores = Scoring::hash;
      break;
  }
  c.kind = kind;
  return c;
}

std::vector<std::string> fixed_keys(RouterKind kind) {
  std::vector<std::string> keys;
  const auto fix = [&keys](std::initializer_list<const char*> more) {
    keys.insert(keys.end(), more.begin(), more.end());
  };
  if (kind == RouterKind::top_k) return keys;
  fix({"scores", "noise", "choice", "bias", "renormalise", "admission"});
  switch (kind) {
    case RouterKind::switch_top_1:
    case RouterKind::gshard: fix({"top_k", "expert_groups", "balance_counts"}); break;
    case RouterKind::glam: fix({"top_k", "expert_groups", "balance_counts", "second_threshold"}); break;
    case RouterKind::mixtral: fix({"balance_counts"}); break;
    case RouterKind::st_moe: fix({"balance_counts"}); break;
    case RouterKind::expert_choice: fix({"balance_loss", "expert_groups"}); break;
    case RouterKind::soft: fix({"capacity_factor"}); break;
    case RouterKind::deepseek_v2:
    case RouterKind::deepseek_v3: fix({"balance_counts"}); break;
    case RouterKind::hash: fix({"top_k"}); break;
    case RouterKind::batch_prioritised:
    case RouterKind::noisy_top_k:
    case RouterKind::top_k: break;
  }
  return keys;
}

}  // namespace switchyard
