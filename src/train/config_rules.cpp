#include "train/config_rules.h"

#include <algorithm>
#include <set>

#include "model/placement.h"
#include "train/health_rules.h"
#include "train/router_rules.h"
#include "train/rules.h"

namespace switchyard {

namespace {

constexpr double most_parameters = 1e15;

// As a double: the count of an absurd model does not fit an integer, and every later count may trust that it does.
double parameters_about(const ModelConfig& raw_model, const MoeConfig& raw_moe) {
  const ModelConfig model = resolved(raw_model);
  const MoeConfig moe = resolved(raw_moe, model, 1);
  const double d = static_cast<double>(model.d_model), layers = static_cast<double>(model.n_layers);
  const double heads = static_cast<double>((model.n_heads + model.n_kv_heads) * model.head_dim);
  const double experts = static_cast<double>(moe.experts) * (3 * static_cast<double>(moe.d_ff) + 1);
  const double widths = 2 * heads + 3 * static_cast<double>(model.d_ff) + experts;
  return d * (2 * static_cast<double>(model.vocab_size) + layers * widths);
}

void check_model(const Config& c, Rules& rules) {
  const ModelConfig& m = c.model;
  const std::int64_t even_widths = m.d_model % 2 == 0 ? m.d_model / 2 : m.d_model;  // its divisors leave heads even
  rules.require(m.head_dim > 0 || m.d_model % m.n_heads == 0, {"model.n_heads", "model.d_model", "model.head_dim"},
                m.n_heads, " heads do not divide model.d_model = ", m.d_model,
                "; nearest: ", nearest_divisors(even_widths, m.n_heads), " heads, or set model.head_dim");
  const std::int64_t head_dim = resolved(m).head_dim;
  const bool is_derived = m.head_dim == 0;
  if (!is_derived || m.d_model % m.n_heads == 0)
    rules.require(head_dim % 2 == 0,
                  is_derived ? std::vector<std::string>{"model.d_model", "model.n_heads", "model.head_dim"}
                             : std::vector<std::string>{"model.head_dim"},
                  "a head is ", head_dim, " wide", is_derived ? " (model.d_model / model.n_heads)" : "",
                  m.positions == Positions::rope ? "; rotary embedding turns pairs, so" : ";", " it must be even");
  rules.require(m.relative_buckets % 2 == 0, {"model.relative_buckets"}, m.relative_buckets,
                " buckets; half of them hold one distance each, so it must be even");
  rules.require(m.relative_max_distance > m.relative_buckets / 2,
                {"model.relative_max_distance", "model.relative_buckets"}, "half of ", m.relative_buckets,
                " buckets hold the distances below ", m.relative_buckets / 2, ", the others those up to ",
                m.relative_max_distance, "; at least ", m.relative_buckets / 2 + 1);
  rules.require(m.n_kv_heads == 0 || m.n_heads % m.n_kv_heads == 0, {"model.n_kv_heads", "model.n_heads"}, m.n_kv_heads,
                " key and value heads do not divide ", m.n_heads,
                " query heads; nearest: ", m.n_kv_heads == 0 ? "" : nearest_divisors(m.n_heads, m.n_kv_heads));
  const double parameters = parameters_about(m, c.moe);
  rules.require(parameters <= most_parameters,
                {"model.d_model", "model.n_layers", "model.d_ff", "model.vocab_size", "moe.experts", "moe.d_ff",
                 "model.n_heads", "model.head_dim"},
                "about ", parameters, " parameters; at most ", most_parameters, " can be counted");
}

// What tensor parallelism cuts must divide over its ranks.
void check_tensor(const Config& c, Rules& rules) {
  const ModelConfig m = resolved(c.model);
  const std::int64_t ranks = c.parallel.tensor, keys = m.n_kv_heads * m.head_dim;
  const auto divides = [&](std::int64_t n, const char* key, const char* what) {
    rules.require(n % ranks == 0, {"parallel.tensor", key}, n, what, " do not divide over ", ranks,
                  " ranks; nearest: ", nearest_divisors(n, ranks));
  };
  divides(m.n_heads, "model.n_heads", " heads");
  divides(m.d_ff, "model.d_ff", " columns of a feed-forward layer");
  if (c.moe.experts > 0 && c.moe.shared_experts > 0)
    divides(c.moe.shared_experts * resolved(c.moe, m, c.train.seq_len).d_ff, "moe.shared_experts",
            " columns of the shared experts");
  divides(c.train.seq_len, "train.seq_len", " tokens of a sample");
  rules.require((m.n_kv_heads % ranks == 0 || ranks % m.n_kv_heads == 0) && keys % ranks == 0,
                {"parallel.tensor", "model.n_kv_heads", "model.head_dim"}, m.n_kv_heads, " key and value heads of ",
                m.head_dim, " columns do not divide over ", ranks,
                " ranks; nearest: ", nearest_divisors(m.n_kv_heads, ranks));
  rules.require(m.vocab_size >= ranks, {"parallel.tensor", "model.vocab_size"}, "a vocabulary of ", m.vocab_size,
                " words is too small for ", ranks, " ranks");
}

void check_pipeline(const Config& c, Rules& rules) {
  rules.require(c.parallel.pipeline <= c.model.n_layers, {"parallel.pipeline", "model.n_layers"}, c.parallel.pipeline,
                " stages for ", c.model.n_layers, " blocks, of which each wants one; nearest: ", c.model.n_layers);
}

void check_experts(const Config& c, Rules& rules) {
  const MoeConfig& moe = c.moe;
  const std::int64_t ranks = c.parallel.expert, parts = c.parallel.expert_tensor;
  if (moe.experts == 0) {
    rules.require(ranks == 1, {"parallel.expert", "moe.experts"}, "a dense model (moe.experts = 0) has no experts to ",
                  "spread over ", ranks, " ranks; set it to 1");
    rules.require(parts == 1, {"parallel.expert_tensor", "moe.experts"}, "a dense model (moe.experts = 0) has no ",
                  "experts to cut over ", parts, " ranks; set it to 1");
    return;
  }
  const std::int64_t width = resolved(moe, resolved(c.model), c.train.seq_len).d_ff;
  rules.require(width % parts == 0, {"parallel.expert_tensor", "moe.d_ff"}, width,
                " columns of an expert do not divide over ", parts,
                " ranks; nearest: ", nearest_divisors(width, parts));
  rules.require(moe.experts % ranks == 0, {"parallel.expert", "moe.experts"}, moe.experts,
                " experts do not divide over ", ranks, " ranks; nearest: ", nearest_divisors(moe.experts, ranks));
  std::set<std::int64_t> placed;
  for (std::size_t i = 0; i < moe.layers.size(); ++i) {
    const std::vector<std::string> keys{text("moe.layers[", i, "]"), "model.n_layers"};
    const std::int64_t layer = moe.layers[i];
    rules.require(layer >= 0 && layer < c.model.n_layers, keys, "no block ", layer,
                  "; model.n_layers = ", c.model.n_layers, " gives blocks 0 to ", c.model.n_layers - 1);
    rules.require(placed.insert(layer).second, {keys[0]}, "block ", layer, " is listed twice");
  }
}

// How `data` ranks share a step; 0 is a number not known yet, but a micro-batch divides the whole with any.
void check_batches(const TrainConfig& train, std::int64_t data, Rules& rules) {
  if (data == 0) {
    rules.require(train.micro_batch == 0 || train.global_batch % train.micro_batch == 0,
                  {"train.micro_batch", "train.global_batch"}, "micro-batches of ", train.micro_batch,
                  " do not divide train.global_batch = ", train.global_batch,
                  "; nearest: ", train.micro_batch == 0 ? "" : nearest_divisors(train.global_batch, train.micro_batch));
    return;
  }
  const bool divides = train.global_batch % data == 0;
  rules.require(divides, {"train.global_batch", "parallel.data"}, train.global_batch, " samples do not divide over ",
                data, " data ranks; nearest: ", nearest_multiples(data, train.global_batch));
  if (!divides || train.micro_batch == 0) return;
  const std::int64_t share = train.global_batch / data;
  rules.require(share % train.micro_batch == 0, {"train.micro_batch", "train.global_batch", "parallel.data"},
                "a rank's ", share, " samples of a step (", train.global_batch, " over ", data,
                ") do not divide into micro-batches of ", train.micro_batch,
                "; nearest: ", nearest_divisors(share, train.micro_batch));
}

// Sets of experts, expert x expert_tensor ranks each, fill the ranks that a stage has.
void check_expert_ranks(const ParallelConfig& p, std::int64_t ranks, const std::string& whose, const char* unit,
                        Rules& rules) {
  const std::int64_t set = std::int64_t{p.expert} * p.expert_tensor;
  std::vector<std::string> keys{"parallel.expert"};
  if (p.expert_tensor > 1) keys.emplace_back("parallel.expert_tensor");
  if (*unit) keys.emplace_back("parallel.data");
  rules.require(ranks % set == 0, keys, set,
                p.expert_tensor > 1 ? " ranks of experts (expert x expert_tensor)" : " expert ranks", " do not divide ",
                whose, ranks, unit, "; nearest: ", nearest_divisors(ranks, set));
}

void check_sources(const std::vector<DataSource>& sources, const std::string& key, Rules& rules) {
  double weights = 0;
  for (std::size_t i = 0; i < sources.size(); ++i) {
    const std::string path_key = text(key, "[", i, "].path");
    rules.require(!sources[i].path.empty(), {path_key}, "wanted the prefix of a token file, came an empty text");
    weights += sources[i].weight;
  }
  rules.require(sources.empty() || weights > 0, {key}, "every weight is 0; one must be above");
}

[[noreturn]] void refuse(const std::vector<Violation>& broken) {
  std::string lines;
  for (const Violation& violation : broken)
    lines += text(lines.empty() ? "" : "\n", violation.keys.front(), ": ", violation.what);
  throw Error(lines, Fault::usage);
}

}  // namespace

std::vector<Violation> violations(const Config& c) {
  Rules rules;
  rules.require(!c.run.dir.empty(), {"run.dir"}, "wanted a folder, came an empty text");
  check_model(c, rules);
  check_pipeline(c, rules);
  check_experts(c, rules);
  if (c.moe.experts > 0) check_router(c, rules);
  if (c.moe.experts > 0) check_health(c, rules);
  rules.require(
      c.optim.kind == OptimKind::adamw || c.optim.eps >= 1e-38, {"optim.eps", "optim.kind"},
      "without it rows and columns of zeros would be divided by their root; at least 1.0e-38, which f32 holds");
  check_sources(c.data.train, "data.train", rules);
  check_sources(c.data.valid, "data.valid", rules);
  if (c.model.d_model % c.model.n_heads == 0 || c.model.head_dim > 0) check_tensor(c, rules);
  if (c.parallel.data > 0)
    check_expert_ranks(c.parallel, std::int64_t{c.parallel.data} * c.parallel.tensor, "",
                       c.parallel.tensor == 1 ? " data ranks" : " data x tensor ranks", rules);
  check_batches(c.train, c.parallel.data, rules);
  return std::move(rules).broken();
}

void check_layout(const Config& c, int world_size) {
  Rules rules;
  const ParallelConfig& p = c.parallel;
  rules.require(world_size % p.pipeline == 0, {"parallel.pipeline"}, p.pipeline, " stages do not divide the run's ",
                world_size, "; nearest: ", nearest_divisors(world_size, p.pipeline));
  const int stage = std::max(world_size / p.pipeline, 1);  // its ranks
  const std::string whole = p.pipeline > 1 ? "a stage's " : "the run's ";
  rules.require(stage % p.tensor == 0, {"parallel.tensor"}, p.tensor, " tensor ranks do not divide ", whole, stage,
                "; nearest: ", nearest_divisors(stage, p.tensor));
  const int data = stage / p.tensor;
  const std::int64_t wanted = std::int64_t{p.pipeline} * p.data * p.tensor;
  rules.require(p.data == 0 || wanted == world_size, {"parallel.data"}, "wanted ", wanted, " ranks, but the run has ",
                world_size, "; set it to ", data, ", or to 0 for all of them");
  check_expert_ranks(p, stage, whole, "", rules);
  check_batches(c.train, std::max(data, 1), rules);
  if (const std::vector<Violation> broken = std::move(rules).broken(); !broken.empty()) refuse(broken);
}

void check_training(const Config& c) {
  SY_REQUIRE(!c.data.train.empty(), Fault::usage,
             "data.train: no token files to train on; wanted a list such as [{path: corpus/train}]");
}

std::vector<std::string> warnings(const Config& c) {
  std::vector<std::string> lines;
  const ScheduleConfig& schedule = c.optim.schedule;
  const bool decays = schedule.kind == ScheduleKind::linear || schedule.kind == ScheduleKind::cosine ||
                      schedule.kind == ScheduleKind::wsd;
  if (schedule.warmup_steps >= c.train.steps)
    lines.push_back(text("optim.schedule.warmup_steps: the run's ", c.train.steps, " steps end before its warm-up of ",
                         schedule.warmup_steps, " does"));
  else if (decays && schedule.decay_steps > c.train.steps - schedule.warmup_steps)
    lines.push_back(
        text("optim.schedule.decay_steps: the run ends before its decay of ", schedule.decay_steps, " steps does"));
  const auto warn_if_idle = [&lines](bool is_idle, const char* key, const char* who) {
    if (is_idle) lines.push_back(text(key, ": has no effect; it is ", who));
  };
  const bool is_adamw = c.optim.kind == OptimKind::adamw;
  warn_if_idle(is_adamw && c.optim.update_clip != OptimConfig{}.update_clip, "optim.update_clip", "Adafactor's");
  warn_if_idle(is_adamw && c.optim.scale_floor != OptimConfig{}.scale_floor, "optim.scale_floor", "Adafactor's");
  warn_if_idle(schedule.kind != ScheduleKind::inverse_sqrt && schedule.hold_steps > 0, "optim.schedule.hold_steps",
               "the schedule inverse_sqrt's");
  warn_if_idle(!decays && schedule.decay_steps > 0, "optim.schedule.decay_steps", "of schedules with an end");
  const std::int64_t parts = c.parallel.data > 0 && c.train.micro_batch > 0
                                 ? c.train.global_batch / (c.parallel.data * c.train.micro_batch)
                                 : 0;
  if (c.parallel.pipeline > 1 && (c.train.micro_batch == 0 || (parts > 0 && parts < c.parallel.pipeline)))
    lines.push_back(text("train.micro_batch: a step of ", std::max<std::int64_t>(parts, 1),
                         " micro-batches keeps most of ", c.parallel.pipeline,
                         " pipeline stages waiting; make it smaller"));
  if (c.moe.experts > 0 && std::ranges::count(moe_blocks(c.moe, c.model.n_layers), true) == 0)
    lines.push_back(text("moe.every: none of the ", c.model.n_layers, " blocks is MoE, so the model is dense"));
  const auto has_no_experts = [&](bool is_set, const char* key) {
    if (c.moe.experts == 0 && is_set)
      lines.push_back(text(key, ": has no effect, for moe.experts = 0 makes the model dense"));
  };
  has_no_experts(!c.moe.layers.empty(), "moe.layers");
  has_no_experts(c.moe.shared_experts > 0, "moe.shared_experts");
  has_no_experts(c.moe.expert_dropout > 0, "moe.expert_dropout");
  if (c.moe.experts > 0) {
    const std::vector<std::string> of_health = health_warnings(c);
    lines.insert(lines.end(), of_health.begin(), of_health.end());
  }
  return lines;
}

Config resolved(Config c, int world_size) {
  c.model = resolved(c.model);
  c.moe = resolved(c.moe, c.model, c.train.seq_len);
  if (c.parallel.data == 0) c.parallel.data = world_size / (c.parallel.pipeline * c.parallel.tensor);
  if (c.train.micro_batch == 0 && c.parallel.data > 0) c.train.micro_batch = c.train.global_batch / c.parallel.data;
  return c;
}

}  // namespace switchyard
