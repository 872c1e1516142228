#include "train/router_rules.h"

#include <algorithm>

#include "model/placement.h"
#include "moe/room.h"
#include "train/fields.h"
#include "train/scalar.h"

namespace switchyard {
namespace {

// A published router is not itself with another value in the keys that make it.
void check_kind(RouterConfig router, Rules& rules) {
  RouterConfig published = router_preset(router.kind);
  const Section is = describe(router), wanted = describe(published);
  for (const std::string& name : fixed_keys(router.kind)) {
    const auto field = std::ranges::find(is.fields, name, &Field::name);
    const std::string value = value_text(wanted.fields[std::size_t(field - is.fields.begin())]);
    rules.require(value_text(*field) == value, {"router." + name, "router.kind"},
                  "router.kind = ", value_text(is.fields.front()), " has ", value,
                  " here; router.kind = top_k leaves it free");
  }
}

void check_choices(const RouterConfig& router, std::int64_t experts, Rules& rules) {
  rules.require(router.top_k <= experts, {"router.top_k", "moe.experts"}, "a token cannot go to ", router.top_k, " of ",
                experts, " experts; nearest: ", experts);
  rules.require(router.top_k != 1 || !router.renormalise || router.scores == Scoring::hash,
                {"router.renormalise", "router.top_k"},
                "with router.top_k = 1 the weight would always be 1, and the router would get no gradient from the ",
                "language-model loss; set router.renormalise: false (Switch)");
  rules.require(router.kind != RouterKind::soft || router.top_k == experts, {"router.top_k", "router.kind"},
                "soft routing goes to all experts; set 0, or router.kind: top_k");
  const bool divide = experts % router.expert_groups == 0;
  rules.require(divide, {"router.expert_groups", "moe.experts"}, experts, " experts do not divide into ",
                router.expert_groups, " groups; nearest: ", nearest_divisors(experts, router.expert_groups));
  if (!divide) return;
  const std::int64_t members = experts / router.expert_groups, met = router.groups_met;
  rules.require(met <= router.expert_groups, {"router.groups_met", "router.expert_groups"}, "a token cannot go to ",
                met, " of ", router.expert_groups, " groups; nearest: ", router.expert_groups);
  rules.require(router.top_k <= met * members || router.top_k > experts,
                {"router.top_k", "router.groups_met", "router.expert_groups", "router.kind", "moe.experts"},
                router.top_k, " choices do not fit the ", met * members, " experts of the groups that a token may go ",
                "to; nearest: ", met * members);
  rules.require(router.group_best <= members, {"router.group_best", "router.expert_groups"}, "a group of ", members,
                " experts has no ", router.group_best, " best; nearest: ", members);
}

void check_room(const MoeConfig& moe, std::int64_t seq_len, Rules& rules) {
  const RouterConfig& router = moe.router;
  rules.require(seq_len % router.group_size == 0, {"router.group_size", "train.seq_len"}, "groups of ",
                router.group_size, " tokens do not divide train.seq_len = ", seq_len,
                "; nearest: ", nearest_divisors(seq_len, router.group_size));
  const bool experts_choose = router.choice == Choosing::experts, by_device = router.device_capacity > 0;
  rules.require(
      router.capacity_factor > 0 || !experts_choose, {"router.capacity_factor", "router.choice"},
      "experts that choose need a capacity: router.top_k * router.capacity_factor experts a token on average");
  const std::int64_t group = router.group_size, taken = moe.experts * expert_capacity(moe, group);
  rules.require(!experts_choose || router.expert_cap == 0 || router.expert_cap * group >= taken,
                {"router.expert_cap", "router.top_k", "router.capacity_factor"}, "experts that take ", taken,
                " rows of the ", group, " tokens of a group give them more than ", router.expert_cap,
                " each; nearest: ", (taken + group - 1) / group);
  rules.require(router.capacity_factor > 0 || router.admission == Admission::token,
                {"router.capacity_factor", "router.admission"},
                "without a capacity all tokens are admitted, in whatever order");
  rules.require(router.capacity_factor > 0 || router.second_threshold == 0,
                {"router.capacity_factor", "router.second_threshold"},
                "a random second choice spares room in experts, of which there is enough without a capacity");
  rules.require(!experts_choose || router.admission == Admission::token, {"router.admission", "router.choice"},
                "experts that choose admit whom they chose; there is no order to set");
  rules.require(
      !by_device || (router.capacity_factor == 0 && router.second_threshold == 0),
      {"router.device_capacity", router.capacity_factor > 0 ? "router.capacity_factor" : "router.second_threshold"},
      "groups of experts have a capacity, or experts have, and all choices count; set the other to 0");
  rules.require((!experts_choose && !by_device && router.admission == Admission::token) || router.allow_future_tokens,
                {"router.allow_future_tokens",
                 experts_choose ? "router.choice"
                 : by_device    ? "router.device_capacity"
                                : "router.admission",
                 "router.kind"},
                experts_choose ? "experts choose among all tokens of a group"
                : by_device    ? "what is dropped are the lowest scores of a group"
                               : "the surest tokens of a group are admitted first",
                ", so later tokens decide where earlier ones go: a language model then sees the future in training, ",
                "and cannot do the same when it generates; router.allow_future_tokens: true accepts that");
}

// Keys that mean nothing to such a router, but for the value that says so.
void check_unused(const RouterConfig& router, Rules& rules) {
  const auto unused = [&rules](bool is_unset, const char* key, const char* with, const char* why) {
    rules.require(is_unset, {key, with}, why);
  };
  if (router.scores == Scoring::hash) {
    constexpr const char *kScores = "router.scores", *kNone = "has no effect on tokens that are hashed";
    unused(router.choice == Choosing::tokens, "router.choice", kScores, kNone);
    unused(router.jitter == 0, "router.jitter", kScores, kNone);
    unused(!router.noise, "router.noise", kScores, kNone);
    unused(!router.bias, "router.bias", kScores, kNone);
    unused(router.expert_groups == 1, "router.expert_groups", kScores, kNone);
    unused(router.second_threshold == 0, "router.second_threshold", kScores, kNone);
    unused(router.admission == Admission::token, "router.admission", kScores, kNone);
    unused(router.device_capacity == 0, "router.device_capacity", kScores, kNone);
    unused(router.balance_loss == 0, "router.balance_loss", kScores, kNone);
    unused(router.device_loss == 0, "router.device_loss", kScores, kNone);
    unused(router.communication_loss == 0, "router.communication_loss", kScores, kNone);
    unused(router.importance_loss == 0, "router.importance_loss", kScores, kNone);
    unused(router.weight_scale == 1, "router.weight_scale", kScores, kNone);
    unused(router.init_scale == RouterConfig{}.init_scale, "router.init_scale", kScores, kNone);
  }
  if (router.choice == Choosing::experts) {
    constexpr const char *kChoice = "router.choice", *kNone = "has no effect where experts choose, evenly";
    unused(!router.bias, "router.bias", kChoice, kNone);
    unused(router.expert_groups == 1, "router.expert_groups", kChoice, kNone);
    unused(router.second_threshold == 0, "router.second_threshold", kChoice, kNone);
    unused(!router.renormalise, "router.renormalise", kChoice,
           "experts that choose do not know who else chose a token; set it to false");
    unused(router.device_capacity == 0, "router.device_capacity", kChoice, kNone);
    unused(router.balance_loss == 0, "router.balance_loss", kChoice, kNone);
    unused(router.importance_loss == 0, "router.importance_loss", kChoice, kNone);
    unused(router.load_loss == 0, "router.load_loss", kChoice, kNone);
  }
  unused(router.choice == Choosing::experts || router.expert_cap == 0, "router.expert_cap", "router.choice",
         "tokens that choose have router.top_k experts");
  unused(router.bias || router.bias_rate == RouterConfig{}.bias_rate, "router.bias_rate", "router.bias",
         "there is no bias to move");
  unused(router.groups_met != router.expert_groups || router.group_best == 1, "router.group_best", "router.groups_met",
         "a token may go to all groups, whatever their best scores");
  unused(router.top_k > 1 || router.second_threshold == 0, "router.second_threshold", "router.top_k",
         "there is no second choice");
  unused(router.expert_groups > 1 || router.device_capacity < 1, "router.device_capacity", "router.expert_groups",
         "one group of experts has room for all choices");
  unused(router.device_capacity > 0 || router.spared_groups == RouterConfig{}.spared_groups, "router.spared_groups",
         "router.device_capacity", "nothing is dropped by groups of experts, so that none needs to be spared");
  rules.require(router.scores == Scoring::softmax || router.z_loss == 0, {"router.z_loss", "router.scores"},
                "the z-loss is of the softmax's normaliser, which there is none of");
  rules.require(router.scores != Scoring::sigmoid || !router.noise, {"router.noise", "router.scores"},
                "noise is defined for a softmax");
}

void check_losses(const RouterConfig& router, std::int64_t experts, Rules& rules) {
  rules.require(router.load_loss == 0 || router.noise, {"router.load_loss", "router.noise"},
                "the expected load is that under noise; set router.noise: true");
  rules.require(router.load_loss == 0 || router.top_k < experts, {"router.load_loss", "router.top_k"},
                "where tokens go to all experts their load is certain");
  rules.require((router.device_loss == 0 && router.communication_loss == 0) || router.expert_groups > 1,
                {router.device_loss > 0 ? "router.device_loss" : "router.communication_loss", "router.expert_groups"},
                "there is one group of experts, which has all the load");
  rules.require((router.importance_loss == 0 && router.load_loss == 0) || router.balance_scope != BalanceScope::global,
                {"router.balance_scope", "router.importance_loss", "router.load_loss"},
                "the variation of importance and load is not defined over parts of a batch; set micro_batch");
}

}  // namespace

void check_router(const Config& c, Rules& rules) {
  check_kind(c.moe.router, rules);
  const MoeConfig moe = resolved(c.moe, c.model, c.train.seq_len);
  const RouterConfig& router = moe.router;
  check_choices(router, moe.experts, rules);
  check_room(moe, c.train.seq_len, rules);
  const bool experts_choose = router.choice == Choosing::experts;
  const double tokens = static_cast<double>(c.train.global_batch) * static_cast<double>(c.train.seq_len),
               choices = static_cast<double>(experts_choose ? moe.experts : router.top_k);
  rules.require(
      moe.expert_dropout == 0 || tokens * choices < 0x1p31,
      {"moe.expert_dropout", "train.global_batch", "train.seq_len", experts_choose ? "moe.experts" : "router.top_k"},
      "the choices of a step must be fewer than 2^31, by which dropout counts them");
  check_unused(router, rules);
  check_losses(router, moe.experts, rules);
}

}  // namespace switchyard
