#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "data/tokenizer.h"

namespace switchyard {

struct TokenizeOptions {
  std::string separator;  // line between the documents of a plain text file; empty: a file is one document
  std::string domain;     // of documents that do not name one themselves; empty: none
};

struct TokenizeSummary {
  std::int64_t files = 0, documents = 0, tokens = 0, bytes = 0;
};

// Writes PREFIX.bin, .idx and .json with every document of the files (read_documents tells how they are read) in order,
// each followed by the tokenizer's end-of-text token. Holds one document at a time. Throws Error (Fault::data) as
// read_documents and TokenFileWriter do, and then leaves no new file behind.
TokenizeSummary tokenize_files(std::span<const std::string> paths, const std::string& prefix,
                               const Tokenizer& tokenizer, const TokenizeOptions& options = {});

}  // namespace switchyard
