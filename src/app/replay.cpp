#include "train/replay.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "app/commands.h"
#include "app/ranks.h"
#include "train/metrics.h"

namespace switchyard {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::string path;
  std::vector<std::string> policies;
  bool json = false;
};

struct Replayed {
  Policy policy;
  std::vector<LayerHealth> blocks;

  template <class F>
  double mean(F value) const {
    double sum = 0;
    for (const LayerHealth& block : blocks) sum += value(block.health);
    return sum / static_cast<double>(blocks.size());
  }
};

// A row a policy: means over MoE blocks, but for the largest load, which is that of any.
void print_table(const std::vector<Replayed>& all) {
  std::size_t width = 6, choices = 1;
  for (const Replayed& r : all) {
    width = std::max(width, r.policy.name.size());
    choices = std::max(choices, r.blocks.front().health.dropped.size());
  }
  fmt::print("{:<{}}  dropped, %", "policy", width);
  for (std::size_t k = 0; k < choices; ++k) fmt::print("  choice {}", k + 1);
  fmt::print("  gate, %  load cv    p10    p90    max  dead, %\n");
  for (const Replayed& r : all) {
    fmt::print("{:<{}}  {:>10.2f}", r.policy.name, width, 100 * r.mean([](const auto& h) { return h.drop_fraction; }));
    for (std::size_t k = 0; k < choices; ++k)
      if (k < r.blocks.front().health.dropped.size())
        fmt::print("  {:>8.2f}", 100 * r.mean([k](const auto& h) { return h.dropped[k]; }));
      else
        fmt::print("  {:>8}", "-");
    double most = 0;
    for (const LayerHealth& block : r.blocks) most = std::max(most, block.health.load_max);
    fmt::print("  {:>7.2f}  {:>7.3f}  {:>5.2f}  {:>5.2f}  {:>5.2f}  {:>7.2f}\n",
               100 * r.mean([](const auto& h) { return h.dropped_gate; }),
               r.mean([](const auto& h) { return h.load_cv; }), r.mean([](const auto& h) { return h.load_p10; }),
               r.mean([](const auto& h) { return h.load_p90; }), most,
               100 * r.mean([](const auto& h) { return h.dead_experts; }));
  }
}

int replay(const Options& options, ProcessGroup& world) {
  SY_REQUIRE(world.size() == 1, Fault::usage, "replay runs on one rank, however many recorded, not on ", world.size(),
             "; start it with -n 1");
  const Record record = load_record(options.path, world);
  std::vector<Replayed> all;
  all.push_back({policy_of(record, ""), {}});
  for (const std::string& changes : options.policies) all.push_back({policy_of(record, changes), {}});
  for (Replayed& r : all) r.blocks = replay(record, r.policy, world);

  if (!options.json) {
    fmt::print("{} tokens of {} step{} from {} on, {} MoE block{} of {} experts\n\n", record.token_T.numel(),
               record.steps, record.steps == 1 ? "" : "s", record.state.step + 1, record.blocks.size(),
               record.blocks.size() == 1 ? "" : "s", record.config.moe.experts);
    print_table(all);
    return 0;
  }
  Json json{{"tokens", record.token_T.numel()},
            {"steps", record.steps},
            {"step", record.state.step},
            {"policies", Json::array()}};
  for (const Replayed& r : all) {
    Json blocks = Json::array();
    for (const LayerHealth& block : r.blocks) blocks.push_back(Json::parse(to_json(block)));
    json["policies"].push_back({{"policy", r.policy.name}, {"router", blocks}});
  }
  fmt::print("{}\n", json.dump(2));
  return 0;
}

}  // namespace

void add_replay(CLI::App& app, Action& action) {
  CLI::App* command =
      app.add_subcommand("replay", "route recorded batches again with another k, capacity, group or policy");
  const auto options = std::make_shared<Options>();
  command->add_option("decisions", options->path, "a directory that `record` made")->required();
  command->add_option("--policy", options->policies,
                      "changes of the `router` section, 'top_k=1 renormalise=false'; once for each row");
  command->add_flag("--json", options->json, "for programs: every reading of every block");
  command->callback([options, &action] {
    action = [options] { return on_ranks([&](ProcessGroup& world) { return replay(*options, world); }); };
  });
}

}  // namespace switchyard
