#include <spdlog/fmt/fmt.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "app/commands.h"
#include "checkpoint/checkpoint.h"
#include "data/token_file_verify.h"

namespace switchyard {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::string path;
  std::int64_t vocab_size = 0;
  bool json = false;
};

// Prints what was found and gives the exit code: 0 where all is well.
int tell(const Options& options, Json json, const std::vector<std::string>& problems, const std::string& good,
         Fault fault) {
  json["problems"] = problems;
  json["good"] = problems.empty();
  if (options.json) {
    fmt::print("{}\n", json.dump(2));
  } else if (problems.empty()) {
    fmt::print("good: {}\n", good);
  } else {
    for (const std::string& problem : problems) fmt::print("bad: {}\n", problem);
  }
  return problems.empty() ? 0 : static_cast<int>(fault);
}

int verify(const Options& options) {
  if (std::filesystem::is_directory(options.path)) {
    const std::filesystem::path inside = std::filesystem::path(options.path) / "checkpoints";
    const CheckpointReport r = verify_checkpoint(std::filesystem::exists(inside) ? inside.string() : options.path);
    std::int64_t bytes = 0;
    for (const StoredFile& f : r.files) bytes += f.bytes;
    return tell(
        options,
        {{"checkpoint", r.path.string()}, {"step", r.state.step}, {"tensors", r.tensors.size()}, {"bytes", bytes}},
        r.problems,
        fmt::format("{}, step {}, {} tensors, {} bytes in {} files", r.path.string(), r.state.step, r.tensors.size(),
                    bytes, r.files.size()),
        Fault::checkpoint);
  }
  std::string prefix = options.path;
  for (const char* suffix : {".bin", ".idx", ".json"})
    if (prefix.ends_with(suffix)) prefix.resize(prefix.size() - std::string_view(suffix).size());
  TokenFileReport r;
  try {
    r = verify_token_file(prefix, options.vocab_size);
  } catch (const Error& error) {  // not even its sizes can be told
    if (!options.json) throw;
    return tell(options, {{"token_file", prefix}}, {error.what()}, "", error.fault());
  }
  Json domains = Json::object();
  for (const DomainRange& range : r.domains)
    domains[range.domain] = domains.value(range.domain, std::int64_t{0}) + range.count;
  return tell(options,
              {{"token_file", prefix},
               {"documents", r.documents},
               {"tokens", r.tokens},
               {"longest_document", r.longest_document},
               {"min_token", r.min_token},
               {"max_token", r.max_token},
               {"documents_by_domain", domains}},
              r.problems,
              fmt::format("{}, {} tokens of {} documents, ids {} to {}{}", prefix, r.tokens, r.documents, r.min_token,
                          r.max_token, r.described ? "" : "; no .json beside it, so hashes were not compared"),
              Fault::data);
}

}  // namespace

void add_verify(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("verify", "check every byte of a checkpoint or a token file");
  const auto options = std::make_shared<Options>();
  command->add_option("path", options->path, "a run's directory, a checkpoint, or a token file's prefix")->required();
  command->add_option("--vocab-size", options->vocab_size, "refuse tokens from this one on")
      ->check(CLI::Range(0, 1 << 24));
  command->add_flag("--json", options->json, "for programs");
  command->callback([options, &action] { action = [options] { return verify(*options); }; });
}

}  // namespace switchyard
