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
  std::string against;
  bool digests = false, json = false;
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

Verified verify_run(const std::string& path) {
  const std::filesystem::path inside = std::filesystem::path(path) / "checkpoints";
  return verify_checkpoint(std::filesystem::exists(inside) ? inside.string() : path);
}

int verify_saved(const Options& options) {
  const Verified r = verify_run(options.path);
  std::vector<std::string> problems = r.problems;
  if (!options.against.empty()) {
    const Verified other = verify_run(options.against);
    problems.insert(problems.end(), other.problems.begin(), other.problems.end());
    const std::vector<std::string> between = differences(r, other);
    problems.insert(problems.end(), between.begin(), between.end());
  }
  std::int64_t bytes = 0;
  for (const StoredFile& f : r.files) bytes += f.bytes;
  Json json{{"checkpoint", r.path.string()}, {"step", r.state.step}, {"tensors", r.tensors.size()}, {"bytes", bytes}};
  std::string good = fmt::format("{}, step {}, {} tensors, {} bytes in {} files", r.path.string(), r.state.step,
                                 r.tensors.size(), bytes, r.files.size());
  if (!r.had_digests) good += "; it was saved without digests, so none were compared";
  if (r.problems.empty()) {  // else the digests are unknown
    json["digest"] = digest_of(r.tensors);
    good += fmt::format("\ndigest {}", json["digest"].get<std::string>());
    for (const StoredTensor& tensor : r.tensors) {
      json["digests"][tensor.name] = to_hex(*tensor.digest);
      if (options.digests) good += fmt::format("\n{}  {}", to_hex(*tensor.digest), tensor.name);
    }
  }
  return tell(options, json, problems, good, Fault::checkpoint);
}

int verify(const Options& options) {
  if (std::filesystem::is_directory(options.path)) return verify_saved(options);
  SY_REQUIRE(options.against.empty() && !options.digests, Fault::usage, options.path,
             " is no checkpoint; --against and --digests are for those");
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
  command->add_option("--against", options->against, "another checkpoint, whose tensors must be the same");
  command->add_flag("--digests", options->digests, "print each tensor's digest, the same on every layout");
  command->add_flag("--json", options->json, "for programs");
  command->callback([options, &action] { action = [options] { return verify(*options); }; });
}

}  // namespace switchyard
