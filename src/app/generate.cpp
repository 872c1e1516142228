#include <spdlog/fmt/fmt.h>

#include <memory>

#include "app/commands.h"
#include "app/ranks.h"
#include "data/tokenizer.h"
#include "train/restore.h"
#include "train/sample.h"

namespace switchyard {
namespace {

struct Options {
  std::string path, prompt;
  SampleOptions sample;
};

int generate(Options options, ProcessGroup& world) {
  const Restored r = restore(options.path, {}, world);
  const auto tokenizer = make_tokenizer(r.state.tokenizer);
  std::vector<std::int32_t> prompt = tokenizer->encode(options.prompt);
  if (prompt.empty()) prompt = {tokenizer->eos()};  // as if a document began
  options.sample.context = r.config.train.seq_len;
  options.sample.stop = tokenizer->eos();

  const bool speaks = world.rank() == 0;
  if (speaks) fmt::print("{}", options.prompt);
  sample(*r.model, prompt, options.sample, [&](std::int32_t token) {
    if (!speaks) return;
    fmt::print("{}", tokenizer->decode(std::span(&token, 1)));
    std::fflush(stdout);
  });
  if (speaks) fmt::print("\n");
  return 0;
}

}  // namespace

void add_generate(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("generate", "let a checkpoint go on from a prompt");
  const auto options = std::make_shared<Options>();
  command->add_option("checkpoint", options->path, "a run's directory, or a checkpoint")->required();
  command->add_option("--prompt", options->prompt, "text to go on from; none: a new document");
  command->add_option("--tokens", options->sample.max_tokens, "at most so many")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  command->add_option("--temperature", options->sample.temperature, "0: always the likeliest token")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 100.0));
  command->add_option("--top-k", options->sample.top_k, "draw among the likeliest only; 0: among all")
      ->capture_default_str()
      ->check(CLI::Range(0, 1 << 24));
  command->add_option("--seed", options->sample.seed, "of the draws")->capture_default_str();
  command->callback([options, &action] {
    action = [options] { return on_ranks([&](ProcessGroup& world) { return generate(*options, world); }); };
  });
}

}  // namespace switchyard
