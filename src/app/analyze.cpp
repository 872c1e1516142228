#include <spdlog/fmt/fmt.h>

#include <filesystem>
#include <memory>

#include "app/commands.h"
#include "app/ranks.h"
#include "data/output_file.h"
#include "train/analysis_page.h"
#include "train/messages.h"
#include "train/scalar.h"
#include "train/setup.h"
#include "train/specialisation_files.h"

namespace switchyard {
namespace {

struct Options {
  std::string path, out;
  std::vector<std::string> data, overrides;
  std::int64_t tokens = 32768;
  SpecialisationOptions measures;
};

std::string file_name(const std::string& path) { return std::filesystem::path(path).filename().string(); }

// "NAME=PREFIX", or a prefix whose last part is the name.
DomainSource source_of(const std::string& argument) {
  const std::size_t equals = argument.find('=');
  return equals == std::string::npos ? DomainSource{file_name(argument), argument}
                                     : DomainSource{argument.substr(0, equals), argument.substr(equals + 1)};
}

int analyze(const Options& options, ProcessGroup& world) {
  SY_REQUIRE(world.size() == 1, Fault::usage, "analyze runs on one rank, whatever layout saved the checkpoint, not on ",
             world.size(), "; start it with -n 1");
  Restored r = restore(options.path, options.overrides, world);
  const auto tokenizer = make_tokenizer(r.state.tokenizer);
  const std::filesystem::path out =
      options.out.empty() ? run_of(r.path) / "analysis" : std::filesystem::path(options.out);
  std::vector<DomainSource> sources;
  for (const std::string& argument : options.data) sources.push_back(source_of(argument));
  if (sources.empty())
    for (const DataSource& source : r.config.data.valid) sources.push_back({file_name(source.path), source.path});

  const RoutedText text = route_text(r, sources, options.tokens);
  const Specialisation s = specialisation_of(text, *tokenizer, options.measures);
  write_file(out / "domains.csv", domains_csv(s));
  write_file(out / "classes.csv", classes_csv(s));
  write_file(out / "tokens.csv", tokens_csv(s));
  write_file(out / "information.csv", information_csv(s));
  write_file(out / "coactivation.csv", coactivation_csv(s));
  write_file(out / "analysis.html",
             analysis_page(s, {.path = r.path.string(),
                               .router = value_text(describe(r.config.moe.router).fields.front()),
                               .version = program_version(),
                               .step = r.state.step,
                               .sources = sources}));
  for (const BlockSpecialisation& block : s.blocks) say(world, says(block, s.shuffles));
  say(world, fmt::format("wrote {}/analysis.html and five tables beside it", out.string()));
  return 0;
}

}  // namespace

void add_analyze(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("analyze", "which experts the tokens of each domain and class go to");
  const auto options = std::make_shared<Options>();
  command->add_option("checkpoint", options->path, "a run's directory, or a checkpoint")->required();
  command->add_option("overrides", options->overrides, "section.key=value");
  command->add_option("--data", options->data, "NAME=PREFIX, a domain and its token file, instead of data.valid");
  command->add_option("--tokens", options->tokens, "about so many of each domain")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 30));
  command->add_option("--shuffles", options->measures.shuffles, "to compare with: labels dealt to other tokens")
      ->capture_default_str()
      ->check(CLI::Range(2, 100000));
  command->add_option("--seed", options->measures.seed, "of the shuffles")->capture_default_str();
  command->add_option("--out", options->out, "directory for what is written; default: RUN/analysis");
  command->callback([options, &action] {
    action = [options] { return on_ranks([&](ProcessGroup& world) { return analyze(*options, world); }); };
  });
}

}  // namespace switchyard
