#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/output_file.h"
#include "data/token_file.h"
#include "data/tokenizer.h"

namespace switchyard {

// Writes PREFIX.bin, PREFIX.idx and PREFIX.json; a document is one sequence. All three are written beside their names,
// brought to the disk, and renamed, the .idx last: a crash at any point leaves either the older files whole or no .idx,
// never a pair that looks whole and is not.
class TokenFileWriter {
 public:
  TokenFileWriter(std::string prefix, const Tokenizer& tokenizer);

  // `domain` is kept in PREFIX.json; empty is none. A document may have 2^31 - 1 tokens.
  void add_document(std::span<const std::int32_t> tokens, std::string_view domain = {});
  // Publishes the files. Without it, the destructor leaves nothing behind.
  TokenFileInfo finish();

 private:
  void write_index();

  std::string prefix_;
  TokenType type_;
  TokenFileInfo info_;
  OutputFile bin_, idx_, json_;
  std::vector<std::int32_t> lengths_;
};

}  // namespace switchyard
