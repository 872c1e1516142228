#include <memory>

#include "app/commands.h"
#include "app/configuration.h"
#include "app/ranks.h"
#include "train/config_rules.h"
#include "train/messages.h"
#include "train/restore.h"
#include "train/trainer.h"
#include "train/upcycle.h"

namespace switchyard {
namespace {

struct Options {
  std::string dense, config;
  std::vector<std::string> overrides;
};

int upcycle(const Options& options, ProcessGroup& world) {
  const Config config = load_config(options.config, options.overrides, world);
  SY_REQUIRE(config.moe.experts > 0, Fault::usage, "moe.experts = 0 makes a dense model; wanted experts");
  check_training(config);
  check_layout(config, world.size());
  const std::filesystem::path checkpoints = checkpoint_dir(config.run.dir);
  SY_REQUIRE(!find_checkpoint(checkpoints, world), Fault::usage, checkpoints.string(),
             ": has checkpoints, which would be trained on instead; choose another run.dir");
  const Found dense = find_trained(options.dense, world);

  require_dense_counterpart(dense, config);

  const Config whole = resolved(config, world.size());
  Trainer trainer(whole, world, ProgressStyle::none);
  upcycle(dense, trainer.learner(), world);
  trainer.save();
  say(world, text("step ", dense.state.step, " of ", dense.path.string(), " is now step 0 of ", config.run.dir,
                  ", with ", config.moe.experts, " experts in each MoE block; train the same configuration to go on"));
  return 0;
}

}  // namespace

void add_upcycle(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("upcycle", "begin a run with experts from a dense checkpoint");
  command->footer("Each expert begins as a copy of its block's feed-forward layer; shared ones are new.");
  const auto options = std::make_shared<Options>();
  command->add_option("dense", options->dense, "a run's directory, or a checkpoint, without experts")->required();
  command->add_option("config", options->config, "YAML file of the run with experts; its `model` section is the same")
      ->required();
  command->add_option("overrides", options->overrides, "section.key=value");
  command->callback([options, &action] {
    action = [options] { return on_ranks([&](ProcessGroup& world) { return upcycle(*options, world); }); };
  });
}

}  // namespace switchyard
