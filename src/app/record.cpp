#include "train/record.h"

#include <memory>

#include "app/commands.h"
#include "app/ranks.h"
#include "train/messages.h"

namespace switchyard {
namespace {

struct Options {
  std::string path, out;
  std::vector<std::string> data;
  std::int64_t steps = 1;
};

int record(const Options& options, ProcessGroup& world) {
  Restored r = restore(options.path, {}, world);
  if (!options.data.empty()) r.config.data.train.clear();
  for (const std::string& prefix : options.data) r.config.data.train.push_back({.path = prefix});
  const std::filesystem::path out =
      options.out.empty() ? run_of(r.path) / "decisions" : std::filesystem::path(options.out);
  record_routing(r, options.steps, out, world);
  say(world, text("recorded what routers see in ", options.steps == 1 ? "step " : "steps from ", r.state.step + 1,
                  options.steps == 1 ? "" : " on", "; switchyard replay ", out.string()));
  return 0;
}

}  // namespace

void add_record(CLI::App& app, Action& action) {
  CLI::App* command =
      app.add_subcommand("record", "keep what routers see in the next training steps, for `replay` to route again");
  const auto options = std::make_shared<Options>();
  command->add_option("checkpoint", options->path, "a run's directory, or a checkpoint")->required();
  command->add_option("--data", options->data, "prefix of a token file, instead of data.train");
  command->add_option("--steps", options->steps, "so many global batches")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  command->add_option("--out", options->out, "a new directory; default: RUN/decisions");
  command->callback([options, &action] {
    action = [options] { return on_ranks([&](ProcessGroup& world) { return record(*options, world); }); };
  });
}

}  // namespace switchyard
