#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "app/commands.h"
#include "app/configuration.h"
#include "app/random_tokens.h"
#include "app/ranks.h"
#include "train/layout_check.h"

namespace switchyard {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::string config;
  std::vector<std::string> overrides;
  int ranks = 8, steps = 3;
  std::int64_t micro_batches = 2;
  bool json = false;
};

// One row of the table; `error` says why there are no numbers.
struct Row {
  int ranks;
  ParallelConfig parallel;
  LayoutDifference difference;
  std::string error{};

  bool is_good() const { return error.empty() && difference.is_rounding(); }
};

Json to_json(const Row& row) {
  Json json{{"ranks", row.ranks},
            {"data", row.parallel.data},
            {"pipeline", row.parallel.pipeline},
            {"tensor", row.parallel.tensor},
            {"expert", row.parallel.expert},
            {"expert_tensor", row.parallel.expert_tensor},
            {"shard_optimizer", row.parallel.shard_optimizer},
            {"good", row.is_good()}};
  if (!row.error.empty()) return json["error"] = row.error, json;
  json["loss"] = row.difference.loss;
  json["gradient"] = row.difference.gradient;
  json["worst_gradient"] = row.difference.worst;
  json["parameters"] = row.difference.parameters;
  json["routing"] = row.difference.routing;
  return json;
}

void print_head() {
  fmt::print("{:>5} {:>8} {:>5} {:>7} {:>7} {:>14} {:>8} {:>10} {:>10} {:>11} {:>9}\n", "ranks", "pipeline", "data",
             "tensor", "expert", "expert_tensor", "sharded", "loss", "gradient", "parameters", "routing");
}

void print(const Row& row) {
  fmt::print("{:>5} {:>8} {:>5} {:>7} {:>7} {:>14} {:>8} ", row.ranks, row.parallel.pipeline, row.parallel.data,
             row.parallel.tensor, row.parallel.expert, row.parallel.expert_tensor,
             row.parallel.shard_optimizer ? "yes" : "no");
  const LayoutDifference& d = row.difference;
  if (row.error.empty())
    fmt::print("{:>10.1e} {:>10.1e} {:>11.1e} {:>9.1e}{}\n", d.loss, d.gradient, d.parameters, d.routing,
               row.is_good() ? "" : "  WRONG: " + d.worst);
  else
    fmt::print(" FAILED: {}\n", row.error);
  std::fflush(stdout);
}

// Every layout of the ranks that mpirun started, or, where it started none, of each number of ranks as threads.
int layouts(const Options& options, ProcessGroup& world) {
  Config config = load_config(options.config, options.overrides, world);
  const RandomTokens tokens(world);
  if (config.data.train.empty()) config.data.train = {{.path = tokens.prefix()}};
  config.data.valid.clear();
  const bool as_threads = world.size() == 1, speaks = world.rank() == 0;
  if (as_threads) config.run.threads = 1;

  const LayoutReference reference = train_alone(config, options.steps, options.micro_batches);
  if (speaks && !options.json) print_head();
  std::vector<Row> rows;
  for (int ranks = as_threads ? 1 : world.size(); ranks <= (as_threads ? options.ranks : world.size()); ++ranks)
    for (const ParallelConfig& parallel : legal_layouts(config, ranks, options.micro_batches)) {
      Row row{.ranks = ranks, .parallel = parallel, .difference = {}};
      const auto compare = [&](ProcessGroup& group) {
        const LayoutDifference d = compare_layout(config, parallel, options.micro_batches, reference, group);
        if (group.rank() == 0) row.difference = d;
      };
      if (as_threads) {
        try {
          run_ranks(ranks, compare);
        } catch (const Error& error) {
          row.error = error.what();
        }
      } else {
        compare(world);
      }
      rows.push_back(row);
      if (speaks && !options.json) print(row);
    }
  const auto wrong = std::ranges::count_if(rows, [](const Row& row) { return !row.is_good(); });
  int code = wrong > 0 ? static_cast<int>(Fault::internal) : 0;
  if (speaks && options.json) {
    Json json{{"config", options.config}, {"steps", options.steps}, {"good", wrong == 0}, {"layouts", Json::array()}};
    for (const Row& row : rows) json["layouts"].push_back(to_json(row));
    fmt::print("{}\n", json.dump(1));
  } else if (speaks) {
    fmt::print("{} layouts, {} steps in fp32, relative to one rank: {}\n", rows.size(), options.steps,
               wrong == 0 ? "all within rounding" : fmt::format("{} beyond rounding", wrong));
  }
  // Rank 0 alone knows the differences.
  return std::stoi(broadcast_text(world, text(code), 0));
}

}  // namespace

void add_layouts(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("layouts", "show that every layout gives what one rank gives");
  command->footer("Trains a few steps on each, in fp32, as threads, or on the ranks that mpirun started.");
  const auto options = std::make_shared<Options>();
  command->add_option("config", options->config, "YAML file; its `parallel` section does not matter")->required();
  command->add_option("overrides", options->overrides, "section.key=value");
  command->add_option("--ranks", options->ranks, "layouts of 1 to so many ranks; under mpirun, of all ranks")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  command->add_option("--steps", options->steps, "steps to compare")->capture_default_str()->check(CLI::Range(1, 1000));
  command->add_option("--micro-batches", options->micro_batches, "parts that each step's samples are computed in")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  command->add_flag("--json", options->json, "for programs");
  command->callback([options, &action] {
    action = [options] { return on_ranks([&](ProcessGroup& world) { return layouts(*options, world); }); };
  });
}

}  // namespace switchyard
