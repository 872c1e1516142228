#include <spdlog/fmt/fmt.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>

#include "app/commands.h"
#include "app/configuration.h"
#include "checkpoint/checkpoint.h"
#include "model/count.h"
#include "train/config_rules.h"
#include "train/memory_plan.h"

namespace switchyard {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kMostRanks = 1 << 24;

struct Options {
  std::string path;
  std::vector<std::string> overrides;
  int ranks = 0;  // 0: as few as the layout allows
  bool json = false;
};

std::string resolve_checkpoint(const std::string& path) {
  const std::filesystem::path inside = std::filesystem::path(path) / "checkpoints";
  return std::filesystem::exists(inside) ? inside.string() : path;
}

std::string shape_text(const Shape& shape) { return text(shape); }

// The fewest ranks that have the layout. As a double, which holds the product of the largest of each.
int least_ranks(const ParallelConfig& p) {
  const std::int64_t stage = p.data > 0 ? std::int64_t{p.data} * p.tensor
                                        : std::lcm(std::int64_t{p.tensor}, std::int64_t{p.expert} * p.expert_tensor);
  const double ranks = static_cast<double>(stage) * p.pipeline;
  SY_REQUIRE(ranks <= kMostRanks, Fault::usage, "parallel: a layout of ", ranks, " ranks; at most ", kMostRanks);
  return static_cast<int>(ranks);
}

int inspect_configuration(const Options& options) {
  const auto self = make_self_group();
  Config config = load_config(options.path, options.overrides, *self);
  const int ranks = options.ranks > 0 ? options.ranks : least_ranks(config.parallel);
  check_layout(config, ranks);
  config = resolved(config, ranks);
  const ModelCount count = count_model(config.model, config.moe, config.train.seq_len);
  const MemoryPlan plan = plan_memory(config);
  const std::int64_t step_tokens = config.train.global_batch * config.train.seq_len;
  if (options.json) {
    Json memory;
    for (int i = 0; i < kMemoryKinds; ++i)
      memory[name_of(static_cast<Memory>(i))] = plan.bytes[static_cast<std::size_t>(i)];
    const Json parameters{{"total", count.parameters}, {"active", count.active}, {"experts", count.expert_parameters}};
    fmt::print("{}\n", Json{{"parameters", parameters},
                            {"flops_per_token", count.flops_per_token},
                            {"tokens_per_step", step_tokens},
                            {"steps", config.train.steps},
                            {"ranks", ranks},
                            {"memory_bytes_per_rank", memory}}
                           .dump(2));
    return 0;
  }
  fmt::print("parameters        {:>16L}\n", count.parameters);
  fmt::print("  active a token  {:>16L}\n", count.active);
  fmt::print("  in experts      {:>16L}\n", count.expert_parameters);
  fmt::print("FLOPs a token     {:>16.4g}  forward and backward\n", count.flops_per_token);
  fmt::print("tokens a step     {:>16L}\n", step_tokens);
  fmt::print("FLOPs of the run  {:>16.4g}  {} steps\n",
             count.flops_per_token * static_cast<double>(step_tokens * config.train.steps), config.train.steps);
  fmt::print("memory of each of {} rank{}, as planned\n", ranks, ranks == 1 ? "" : "s");
  for (int i = 0; i < kMemoryKinds; ++i)
    fmt::print("  {:<15} {:>12.1f} MiB\n", name_of(static_cast<Memory>(i)),
               static_cast<double>(plan.bytes[static_cast<std::size_t>(i)]) / (1 << 20));
  return 0;
}

int inspect_saved(const Options& options) {
  const CheckpointReport report = inspect_checkpoint(resolve_checkpoint(options.path));
  if (options.json) {
    Json json{{"path", report.path.string()},
              {"step", report.state.step},
              {"tokens", report.state.tokens},
              {"tokenizer", report.state.tokenizer},
              {"code_version", report.state.code_version},
              {"world_size", report.state.world_size},
              {"layout", report.state.layout},
              {"configuration", report.state.configuration},
              {"tensors", Json::array()},
              {"files", Json::array()}};
    for (const StoredTensor& t : report.tensors) {
      Json shape = Json::array();
      for (int axis = 0; axis < t.shape.rank(); ++axis) shape.push_back(t.shape[axis]);
      json["tensors"].push_back(
          {{"name", t.name}, {"dtype", name_of(t.dtype)}, {"shape", shape}, {"slices", t.slices.size()}});
    }
    for (const StoredFile& f : report.files)
      json["files"].push_back({{"name", f.name}, {"bytes", f.bytes}, {"sha256", f.sha256}});
    fmt::print("{}\n", json.dump(2));
    return 0;
  }
  fmt::print("{}\nstep {}, {} tokens, tokenizer {}, saved by {} on {} ranks ({})\n\n", report.path.string(),
             report.state.step, report.state.tokens, report.state.tokenizer, report.state.code_version,
             report.state.world_size, report.state.layout);
  for (const StoredTensor& t : report.tensors)
    fmt::print("{:<6} {:<22} {:>3} slice{}  {}\n", name_of(t.dtype), shape_text(t.shape), t.slices.size(),
               t.slices.size() == 1 ? " " : "s", t.name);
  fmt::print("\n");
  for (const StoredFile& f : report.files) fmt::print("{}  {:>12} bytes  {}\n", f.sha256, f.bytes, f.name);
  return 0;
}

}  // namespace

void add_inspect(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("inspect", "sizes of a configuration, or what a checkpoint holds");
  const auto options = std::make_shared<Options>();
  command->add_option("path", options->path, "a YAML file, a run's directory or a checkpoint")->required();
  command->add_option("overrides", options->overrides, "section.key=value, of a configuration");
  command
      ->add_option("--ranks", options->ranks,
                   "ranks to plan a configuration's memory for; without it as few as its layout allows")
      ->check(CLI::Range(1, kMostRanks));
  command->add_flag("--json", options->json, "for programs");
  command->callback([options, &action] {
    action = [options] {
      SY_REQUIRE(std::filesystem::exists(options->path), Fault::usage, options->path,
                 ": no such configuration, run or checkpoint");
      return std::filesystem::is_directory(options->path) ? inspect_saved(*options) : inspect_configuration(*options);
    };
  });
}

}  // namespace switchyard
