#include <spdlog/fmt/fmt.h>

#include <cmath>
#include <memory>

#include "app/commands.h"
#include "app/ranks.h"
#include "train/evaluate.h"
#include "train/messages.h"
#include "train/restore.h"

namespace switchyard {
namespace {

struct Options {
  std::string path;
  std::vector<std::string> data, overrides;
};

int eval(const Options& options, ProcessGroup& world) {
  const Restored r = restore(options.path, options.overrides, world);
  std::vector<DataSource> sources = r.config.data.valid;
  if (!options.data.empty()) sources.clear();
  for (const std::string& prefix : options.data) sources.push_back({.path = prefix});
  SY_REQUIRE(!sources.empty(), Fault::usage, "nothing to evaluate on: data.valid is empty; give --data PREFIX");

  for (const DataSource& source : sources) {
    const EvalLoader data(std::span(&source, 1), r.config.train.seq_len, r.config.model.vocab_size);
    Pipeline pipeline(*r.model, *r.mesh);
    const Evaluation e = evaluate(pipeline, data, 8, r.config.train.seq_len, *r.mesh);
    say(world, fmt::format("{}: {:.4f} nats a token, perplexity {:.3f}, {} tokens (step {})", source.path, e.loss,
                           std::exp(e.loss), e.targets, r.state.step));
  }
  return 0;
}

}  // namespace

void add_eval(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("eval", "mean loss of a checkpoint on token files, dropping nothing");
  const auto options = std::make_shared<Options>();
  command->add_option("checkpoint", options->path, "a run's directory, or a checkpoint")->required();
  command->add_option("overrides", options->overrides, "section.key=value");
  command->add_option("--data", options->data, "prefix of a token file, instead of data.valid");
  command->callback([options, &action] {
    action = [options] { return on_ranks([&](ProcessGroup& world) { return eval(*options, world); }); };
  });
}

}  // namespace switchyard
