#include <spdlog/fmt/fmt.h>

#include <memory>

#include "app/commands.h"
#include "app/configuration.h"
#include "train/config_reference.h"
#include "train/config_rules.h"
#include "train/config_writer.h"

namespace switchyard {
namespace {

struct Options {
  std::string config;
  std::vector<std::string> overrides;
  bool schema = false, reference = false;
};

int show(const Options& options) {
  if (options.schema) {
    fmt::print("{}\n", config_schema());
  } else if (options.reference) {
    fmt::print("{}", config_reference());
  } else if (options.config.empty()) {
    fmt::print("{}", write_config(Config{}, Comments::yes));
  } else {
    const auto self = make_self_group();
    const Config config = load_config(options.config, options.overrides, *self);
    for (const std::string& warning : warnings(config)) fmt::print(stderr, "warning: {}\n", warning);
    fmt::print("{}", write_config(resolved(config)));
  }
  return 0;
}

}  // namespace

void add_config(CLI::App& app, Action& action) {
  CLI::App* command =
      app.add_subcommand("config", "check a configuration and print it whole; without one, the defaults with comments");
  const auto options = std::make_shared<Options>();
  command->add_option("config", options->config, "YAML file");
  command->add_option("overrides", options->overrides, "section.key=value");
  command->add_flag("--schema", options->schema, "print the JSON Schema of configurations");
  command->add_flag("--reference", options->reference, "print docs/configuration.md");
  command->callback([options, &action] { action = [options] { return show(*options); }; });
}

}  // namespace switchyard
