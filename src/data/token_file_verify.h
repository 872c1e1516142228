#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/token_file.h"

namespace switchyard {

// What a full scan of a token file found. `problems` is empty where all is well.
struct TokenFileReport {
  std::string prefix;
  TokenType type = TokenType::u16;
  std::int64_t documents = 0, sequences = 0, tokens = 0;
  std::int64_t longest_document = 0;          // tokens
  std::int32_t min_token = 0, max_token = 0;  // 0 where there are no tokens
  bool described = false;                     // by PREFIX.json, whose hashes were compared
  std::vector<DomainRange> domains;
  std::vector<std::string> problems;

  bool good() const { return problems.empty(); }
};

// Reads every byte: tokens against the vocabulary (of PREFIX.json, or the smaller of it and `vocab_size` where that is
// not 0), both files against their hashes, domains against documents. A pair so broken that it cannot be opened is an
// Error (Fault::data), as in TokenFile.
TokenFileReport verify_token_file(const std::string& prefix, std::int64_t vocab_size = 0);

}  // namespace switchyard
