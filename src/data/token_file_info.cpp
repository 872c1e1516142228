#include "data/token_file_info.h"

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tensor/error.h"

namespace switchyard {
namespace {

using Json = nlohmann::ordered_json;
constexpr const char* kFormat = "switchyard tokens";
constexpr int kVersion = 1;

}  // namespace

std::string to_json(const TokenFileInfo& info) {
  Json domains = Json::array();
  for (const DomainRange& range : info.domains)
    domains.push_back({{"domain", range.domain}, {"first", range.first}, {"count", range.count}});
  const Json json = {{"format", kFormat},
                     {"version", kVersion},
                     {"tokenizer", info.tokenizer},
                     {"tokenizer_sha256", info.tokenizer_sha256},
                     {"vocab_size", info.vocab_size},
                     {"documents", info.documents},
                     {"tokens", info.tokens},
                     {"bin_sha256", info.bin_sha256},
                     {"idx_sha256", info.idx_sha256},
                     {"domains", domains}};
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::optional<TokenFileInfo> read_token_file_info(const std::string& path) {
  if (!std::filesystem::exists(path)) return std::nullopt;
  std::ifstream file(path);
  SY_REQUIRE(file, Fault::data, path, ": cannot open");
  try {
    const Json json = Json::parse(file);
    SY_REQUIRE(json.at("format") == kFormat && json.at("version") == kVersion, Fault::data, path, ": wanted format \"",
               kFormat, "\" version ", kVersion, ", got ", json.at("format").dump(), " version ",
               json.at("version").dump());
    TokenFileInfo info{.tokenizer = json.at("tokenizer"),
                       .tokenizer_sha256 = json.at("tokenizer_sha256"),
                       .vocab_size = json.at("vocab_size"),
                       .documents = json.at("documents"),
                       .tokens = json.at("tokens"),
                       .bin_sha256 = json.at("bin_sha256"),
                       .idx_sha256 = json.at("idx_sha256"),
                       .domains = {}};
    for (const Json& range : json.at("domains"))
      info.domains.push_back({range.at("domain"), range.at("first"), range.at("count")});
    return info;
  } catch (const Json::exception& e) {
    throw Error(text(path, ": not the description of a token file: ", e.what()), Fault::data);
  }
}

TokenizerId tokenizer_of(const DataConfig& data) {
  std::optional<TokenizerId> known;
  std::string known_from;
  bool is_told = true;
  for (const auto* sources : {&data.train, &data.valid})
    for (const DataSource& source : *sources) {
      const std::string path = source.path + ".json";
      const std::optional<TokenFileInfo> info = read_token_file_info(path);
      if (!info) {
        is_told &= sources != &data.train;
        continue;
      }
      const TokenizerId id{info->tokenizer, info->tokenizer_sha256};
      if (!known) known = id, known_from = path;
      SY_REQUIRE(*known == id, Fault::data, path, " names the tokenizer ", id.name, " (SHA-256 ", id.sha256, "), but ",
                 known_from, " names ", known->name, " (", known->sha256, "); the token files of a run share one");
    }
  return is_told && known ? *known : TokenizerId{kUnknownTokenizer, ""};
}

}  // namespace switchyard
