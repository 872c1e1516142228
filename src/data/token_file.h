#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "data/mapped_file.h"
#include "data/token_file_info.h"

namespace switchyard {

// How a token is stored; the numbers are the format's codes.
enum class TokenType : std::uint8_t { u8 = 1, i32 = 4, u16 = 8 };

constexpr std::size_t size_of(TokenType type) { return type == TokenType::u8 ? 1 : type == TokenType::u16 ? 2 : 4; }
constexpr const char* name_of(TokenType type) {
  return type == TokenType::u8 ? "u8" : type == TokenType::u16 ? "u16" : "i32";
}
// Megatron's choice: two bytes where the vocabulary surely fits.
constexpr TokenType type_for(std::int64_t vocab_size) { return vocab_size < 65500 ? TokenType::u16 : TokenType::i32; }

// A tokenised corpus as Megatron-LM writes it (core/datasets/indexed_dataset.py): PREFIX.bin holds all tokens, packed;
// PREFIX.idx, little-endian and without padding, tells where sequences and documents begin:
//   offset 0        9 bytes  "MMIDIDX\0\0"
//          9        u64      version, 1
//         17        u8       TokenType
//         18        u64      S, sequences
//         26        u64      D, documents + 1
//         34        i32[S]   tokens of each sequence
//         34 + 4S   i64[S]   byte in .bin at which each sequence begins: they lie one after another
//         34 + 12S  i64[D]   first sequence of each document, then S
//         (+ i8[S] modes, where several modalities share a file; not read)
// Opening checks all of that, in O(S + D), and that .bin is exactly as long as the sequences; every failure is an Error
// (Fault::data) with the file, what was wanted and what came. Tokens are checked by verify_token_file() alone.
// Reading is safe from any number of threads.
class TokenFile {
 public:
  static constexpr std::size_t kHeaderBytes = 34;
  static constexpr char kMagic[10] = "MMIDIDX\0";  // nine bytes count
  static constexpr std::uint64_t kVersion = 1;

  struct Range {
    std::int64_t begin = 0, end = 0;
  };

  explicit TokenFile(std::string prefix);

  const std::string& prefix() const { return prefix_; }
  const MappedFile& idx() const { return idx_; }
  const MappedFile& bin() const { return bin_; }
  const std::optional<TokenFileInfo>& info() const { return info_; }
  TokenType type() const { return type_; }
  std::int64_t sequences() const { return sequences_; }
  std::int64_t documents() const { return documents_; }
  std::int64_t tokens() const { return tokens_; }

  Range document(std::int64_t i) const;  // in tokens
  // Tokens [begin, begin + out.size()) of all documents as one stream. i32 may come out negative in a broken file.
  void read(std::int64_t begin, std::span<std::int32_t> out) const;

  // Stands for the contents: SHA-256 of the .idx and of the .bin's hash in PREFIX.json, or of its size without that.
  std::string fingerprint() const;

 private:
  void check_header();
  void check_sequences() const;
  void check_documents() const;
  void check_info() const;

  std::string prefix_;
  MappedFile idx_, bin_;
  std::optional<TokenFileInfo> info_;
  TokenType type_ = TokenType::u16;
  std::int64_t sequences_ = 0, documents_ = 0, tokens_ = 0;
};

// Throws Error (Fault::data) where the file's vocabulary is larger than the model's. A file without PREFIX.json does
// not tell its vocabulary and passes; the loaders check each token that they read.
void check_vocabulary(const TokenFile& file, std::int64_t vocab_size);

}  // namespace switchyard
