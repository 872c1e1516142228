#include <map>
#include <memory>

#include "app/commands.h"
#include "app/configuration.h"
#include "app/ranks.h"
#include "train/config_rules.h"
#include "train/exit_code.h"
#include "train/memory_table.h"
#include "train/messages.h"
#include "train/setup.h"
#include "train/signals.h"
#include "train/trainer.h"

namespace switchyard {
namespace {

struct Options {
  std::string config;
  std::vector<std::string> overrides;
  std::string progress = "lines";
  bool init_only = false;
};

int train(const Options& options, ProcessGroup& world) {
  const std::map<std::string, ProgressStyle> styles{
      {"lines", ProgressStyle::lines}, {"live", ProgressStyle::live}, {"none", ProgressStyle::none}};
  const Config config = load_config(options.config, options.overrides, world);
  check_training(config);
  check_layout(config, world.size());
  for (const std::string& warning : warnings(config)) warn(world, warning);
  const Config whole = resolved(config, world.size());
  const bool speaks = options.progress != "none";
  const Device device = choose_device(whole.run.device, world);
  if (speaks) say(world, describe_device(device, whole.run.device, world));
  Trainer trainer(whole, world, styles.at(options.progress));
  if (options.init_only) {
    trainer.save();
    return exit_done;
  }
  if (speaks)
    say(world, memory_head() + "\n" + memory_line(plan_memory(whole, {.device = device.type})) + "\n" +
                   memory_line("at the start", device, Moment::now, world));
  const Outcome outcome = trainer.run();
  if (speaks) say(world, memory_head() + "\n" + memory_line("at its peak", device, Moment::peak, world));
  switch (outcome) {
    case Outcome::finished: return exit_done;
    case Outcome::stopped: return exit_stopped;
    case Outcome::alarmed: return exit_alarmed;
  }
  throw Error("unknown outcome");
}

}  // namespace

void add_train(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("train", "train a configuration, from its newest checkpoint if there is one");
  const auto options = std::make_shared<Options>();
  command->add_option("config", options->config, "YAML file")->required();
  command->add_option("overrides", options->overrides, "section.key=value");
  command->add_option("--progress", options->progress, "lines, live (one line, rewritten) or none")
      ->check(CLI::IsMember({"lines", "live", "none"}));
  command->add_flag("--init-only", options->init_only, "save the initial weights as step 0 and stop");
  command->callback([options, &action] {
    action = [options] {
      listen_for_signals();
      return on_ranks([&](ProcessGroup& world) { return train(*options, world); });
    };
  });
}

}  // namespace switchyard
