#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/config.h"
#include "data/tokenizer.h"

namespace switchyard {

// Consecutive documents of one domain.
struct DomainRange {
  std::string domain;
  std::int64_t first = 0, count = 0;

  bool operator==(const DomainRange&) const = default;
};

// What PREFIX.json says about the pair beside it. Megatron neither writes nor reads this file; a pair without it is
// accepted, with its vocabulary unknown.
struct TokenFileInfo {
  std::string tokenizer, tokenizer_sha256;
  std::int64_t vocab_size = 0;
  std::int64_t documents = 0, tokens = 0;
  std::string bin_sha256, idx_sha256;
  std::vector<DomainRange> domains;  // empty, or covers documents in order, without those that name no domain

  bool operator==(const TokenFileInfo&) const = default;
};

std::string to_json(const TokenFileInfo& info);
// Nothing where there is no such file; a file that is not as to_json writes it is an Error (Fault::data).
std::optional<TokenFileInfo> read_token_file_info(const std::string& path);

// The tokenizer of a run's tokens: kUnknownTokenizer where a file of data.train has no description. Two descriptions,
// of data.train or data.valid, that name different ones are an Error (Fault::data).
TokenizerId tokenizer_of(const DataConfig& data);

}  // namespace switchyard
