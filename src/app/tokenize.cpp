#include "data/tokenize.h"

#include <spdlog/fmt/fmt.h>

#include <memory>

#include "app/commands.h"
#include "data/tokenizer.h"

namespace switchyard {
namespace {

struct Options {
  std::vector<std::string> files;
  std::string out, tokenizer = "bytes";
  TokenizeOptions tokenize;
};

int tokenize(const Options& options) {
  const TokenizeSummary s =
      tokenize_files(options.files, options.out, *make_tokenizer(options.tokenizer), options.tokenize);
  fmt::print("{0}.bin, {0}.idx: {1} tokens of {2} documents from {3} bytes\n", options.out, s.tokens, s.documents,
             s.bytes);
  return 0;
}

}  // namespace

void add_tokenize(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("tokenize", "text or JSON lines to a token file (Megatron's .bin and .idx)");
  const auto options = std::make_shared<Options>();
  command->add_option("files", options->files, "plain text, or .jsonl with \"text\" and perhaps \"domain\"")
      ->required();
  command->add_option("--out", options->out, "prefix of the token file")->required();
  command->add_option("--tokenizer", options->tokenizer, "bytes")->capture_default_str();
  command->add_option("--separator", options->tokenize.separator, "line that stands between documents of a text file");
  command->add_option("--domain", options->tokenize.domain, "domain of documents that name none");
  command->callback([options, &action] { action = [options] { return tokenize(*options); }; });
}

}  // namespace switchyard
