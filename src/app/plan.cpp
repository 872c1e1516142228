#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "app/commands.h"
#include "app/configuration.h"
#include "model/count.h"
#include "train/config_rules.h"
#include "train/layout_search.h"

namespace switchyard {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::string config, device;
  std::vector<std::string> overrides;
  int ranks = 1, top = 10;
  double imbalance = 1.2;
  bool json = false;
};

struct Report {
  Options options;
  Config config;
  Hardware hardware;
  ModelCount count;
  std::optional<LayoutPlan> configured;
  std::string refusal{};            // why the configured layout is none of these ranks
  std::vector<LayoutPlan> layouts;  // that are legal, best first
  std::ptrdiff_t fitting = 0;

  double step_tokens() const { return static_cast<double>(config.train.global_batch * config.train.seq_len); }
  double step_flops() const { return step_tokens() * count.flops_per_token; }
};

Hardware hardware_of(const std::string& device) {
  if (!std::filesystem::is_regular_file(device)) return preset_hardware(device);
  std::stringstream text;
  text << std::ifstream(device, std::ios::binary).rdbuf();
  return read_hardware(text.str(), device);
}

const char* name_of(Recompute recompute) {
  constexpr const char* names[] = {"none", "block", "attention", "ffn"};
  return names[static_cast<int>(recompute)];
}

const char* name_of(Phase phase) {
  constexpr const char* names[] = {"forward", "backward", "gradients", "update", "values"};
  return names[static_cast<int>(phase)];
}

double gib(std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 30); }

// The parts of a step, in seconds.
std::vector<std::pair<const char*, double>> parts_of(const TimePlan& time) {
  return {{"products", time.products},   {"passes", time.passes},     {"again", time.again},
          {"tensor", time.tensor},       {"exchange", time.exchange}, {"neighbours", time.neighbours},
          {"gradients", time.gradients}, {"update", time.update},     {"waiting", time.waiting}};
}

Json to_json(const LayoutPlan& plan, const Report& report) {
  Json json{{"data", plan.parallel.data},
            {"pipeline", plan.parallel.pipeline},
            {"tensor", plan.parallel.tensor},
            {"expert", plan.parallel.expert},
            {"expert_tensor", plan.parallel.expert_tensor},
            {"shard_optimizer", plan.parallel.shard_optimizer},
            {"micro_batch", plan.micro_batch},
            {"recompute", name_of(plan.recompute)},
            {"fits", plan.fits(report.hardware)},
            {"step_seconds", plan.time.step},
            {"tokens_per_second", report.step_tokens() / plan.time.step},
            {"utilisation", plan.utilisation}};
  for (const auto& [name, seconds] : parts_of(plan.time)) json["seconds"][name] = seconds;
  for (int i = 0; i < kMemoryKinds; ++i)
    json["memory"][name_of(static_cast<Memory>(i))] = plan.memory[static_cast<Memory>(i)];
  json["memory"]["together"] = plan.memory.together;
  json["traffic"] = Json::array();
  for (const PlannedTraffic& t : plan.traffic)
    json["traffic"].push_back({{"group", name_of(t.group)},
                               {"collective", name_of(t.collective)},
                               {"phase", name_of(t.phase)},
                               {"calls", t.calls},
                               {"bytes", t.bytes}});
  return json;
}

void print_json(const Report& r) {
  Json json{{"config", r.options.config},          {"ranks", r.options.ranks},
            {"device", r.options.device},          {"parameters", r.count.parameters},
            {"active_parameters", r.count.active}, {"flops_per_token", r.count.flops_per_token},
            {"flops_per_step", r.step_flops()},    {"tokens_per_step", r.step_tokens()},
            {"legal", r.layouts.size()},           {"fitting", r.fitting}};
  json["configured"] = r.configured ? to_json(*r.configured, r) : Json();
  if (!r.configured) json["refusal"] = r.refusal;
  json["layouts"] = Json::array();
  for (std::size_t i = 0; i < r.layouts.size() && i < static_cast<std::size_t>(r.options.top); ++i)
    json["layouts"].push_back(to_json(r.layouts[i], r));
  fmt::print("{}\n", json.dump(1));
}

void print_row(const LayoutPlan& plan, const std::string& title, const Report& r) {
  const ParallelConfig& p = plan.parallel;
  fmt::print("{:<13} {:>6} {:>8} {:>6} {:>6} {:>13} {:>7} {:>11} {:>9} {:>10.2f} {:>10.4g} {:>6.1f}{}\n", title, p.data,
             p.pipeline, p.tensor, p.expert, p.expert_tensor, p.shard_optimizer ? "yes" : "no", plan.micro_batch,
             name_of(plan.recompute), gib(plan.memory.together), plan.time.step, 100 * plan.utilisation,
             plan.fits(r.hardware) ? "" : "  does not fit");
}

// Of one layout: where its memory and its time go, and what it sends.
void print_details(const LayoutPlan& plan) {
  fmt::print("memory, GiB   ");
  for (int i = 0; i < kMemoryKinds; ++i)
    fmt::print(" {} {:.2f}", name_of(static_cast<Memory>(i)), gib(plan.memory[static_cast<Memory>(i)]));
  fmt::print("; together {:.2f}\ntime, s       ", gib(plan.memory.together));
  for (const auto& [name, seconds] : parts_of(plan.time)) fmt::print(" {} {:.3g}", name, seconds);
  fmt::print("\n{:<13} {:<15} {:<10} {:>8} {:>12}\n", "sent, a rank", "collective", "when", "calls", "MiB a step");
  for (const PlannedTraffic& t : plan.traffic)
    fmt::print("{:<13} {:<15} {:<10} {:>8} {:>12.2f}\n", name_of(t.group), name_of(t.collective), name_of(t.phase),
               t.calls, static_cast<double>(t.bytes) / (1 << 20));
}

void print_report(const Report& r) {
  const Hardware& h = r.hardware;
  fmt::print("{}: {:.4g} parameters, {:.4g} active a token; a step of {:.4g} tokens is {:.4g} FLOPs\n",
             r.options.config, static_cast<double>(r.count.parameters), static_cast<double>(r.count.active),
             r.step_tokens(), r.step_flops());
  fmt::print("{} ranks of {}: {:.4g} TFLOP/s (peak {:.4g}), {:.4g} GiB, {} a node; predictions, not measurements\n\n",
             r.options.ranks, r.options.device, r.config.run.precision == Precision::fp32 ? h.matmul_fp32 : h.matmul,
             h.peak, h.memory, h.node_devices);
  fmt::print("{:<13} {:>6} {:>8} {:>6} {:>6} {:>13} {:>7} {:>11} {:>9} {:>10} {:>10} {:>6}\n", "", "data", "pipeline",
             "tensor", "expert", "expert_tensor", "sharded", "micro_batch", "recompute", "GiB a rank", "step, s",
             "MFU, %");
  if (r.configured)
    print_row(*r.configured, "as configured", r);
  else
    fmt::print("as configured: {}\n", r.refusal);
  for (std::size_t i = 0; i < r.layouts.size() && i < static_cast<std::size_t>(r.options.top); ++i)
    print_row(r.layouts[i], fmt::format("{}", i + 1), r);
  fmt::print("{} legal layouts, {} fit\n\n{}:\n", r.layouts.size(), r.fitting,
             r.configured ? "as configured" : "the first of these");
  print_details(r.configured ? *r.configured : r.layouts.front());
}

int plan(const Options& options) {
  const auto self = make_self_group();
  Report report{.options = options,
                .config = load_config(options.config, options.overrides, *self),
                .hardware = hardware_of(options.device),
                .count = {},
                .configured = {},
                .layouts = {}};
  const Assumptions assumptions{.device = report.hardware.type, .imbalance = options.imbalance};
  const Config config = resolved(report.config);
  report.count = count_model(config.model, config.moe, config.train.seq_len);
  report.layouts = search_layouts(report.config, options.ranks, report.hardware, assumptions);
  if (report.layouts.empty()) {
    Config plain = report.config;
    plain.parallel = {};
    plain.train.micro_batch = 0;
    check_layout(plain, options.ranks);
    throw Error(text("no layout of ", options.ranks, " ranks is legal"), Fault::usage);
  }
  report.fitting = std::ranges::count_if(report.layouts, [&](const LayoutPlan& p) { return p.fits(report.hardware); });
  if (report.fitting == 0) {
    const LayoutPlan& least = report.layouts.front();
    const ParallelConfig& p = least.parallel;
    throw Error(
        fmt::format("none of {} legal layouts of {} ranks fits {:.4g} GiB; least is {:.4g} GiB a rank, with data "
                    "{}, pipeline {}, tensor {}, expert {}, expert_tensor {}{}, micro_batch {}, recompute {}",
                    report.layouts.size(), options.ranks, report.hardware.memory, gib(least.memory.together), p.data,
                    p.pipeline, p.tensor, p.expert, p.expert_tensor, p.shard_optimizer ? ", shard_optimizer" : "",
                    least.micro_batch, name_of(least.recompute)),
        Fault::usage);
  }
  try {
    check_layout(report.config, options.ranks);
    report.configured = plan_layout(resolved(report.config, options.ranks), report.hardware, assumptions);
  } catch (const Error& error) {
    if (error.fault() != Fault::usage) throw;
    report.refusal = error.what();
  }
  options.json ? print_json(report) : print_report(report);
  return 0;
}

}  // namespace

void add_plan(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand(
      "plan", "predict memory, bytes and time of a configuration, and rank its layouts; needs no GPU");
  const auto options = std::make_shared<Options>();
  command->add_option("config", options->config, "YAML file")->required();
  command->add_option("overrides", options->overrides, "section.key=value");
  command->add_option("--ranks", options->ranks, "ranks to plan for, a device each")
      ->required()
      ->check(CLI::Range(1, 1 << 24));
  command->add_option("--device", options->device, preset_names() + ", or a YAML file (docs/planning.md)")->required();
  command->add_option("--imbalance", options->imbalance, "rows of the busiest rank's experts over the average's")
      ->capture_default_str()
      ->check(CLI::Range(1.0, 1000.0));
  command->add_option("--top", options->top, "layouts to show")->capture_default_str()->check(CLI::Range(1, 1000000));
  command->add_flag("--json", options->json, "for programs");
  command->callback([options, &action] { action = [options] { return plan(*options); }; });
}

}  // namespace switchyard
