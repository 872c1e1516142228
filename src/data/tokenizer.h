#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

// Which tokenizer made some tokens: its name, and the fingerprint of what decides its ids.
struct TokenizerId {
  std::string name, sha256;

  bool operator==(const TokenizerId&) const = default;
};

// The name that stands for a tokenizer that nobody named.
inline constexpr const char* kUnknownTokenizer = "unknown";

// Text to token ids and back. decode(encode(x)) == x for any bytes x, whether they are text or not.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  virtual std::string name() const = 0;
  // Of everything that decides the ids: two tokenizers with equal fingerprints encode alike.
  virtual std::string sha256() const = 0;
  virtual std::int64_t vocab_size() const = 0;
  virtual std::int32_t eos() const = 0;  // ends every document of a token file

  virtual std::vector<std::int32_t> encode(std::string_view text) const = 0;
  // An id outside the vocabulary reads as U+FFFD: a model whose vocabulary is padded may emit one.
  virtual std::string decode(std::span<const std::int32_t> ids) const = 0;
};

// Ids 0 to 255 are bytes, 256 is <|endoftext|>, 257 is <|pad|>. The two words in a text are bytes like any others.
class ByteTokenizer final : public Tokenizer {
 public:
  static constexpr std::int32_t kEndOfText = 256, kPad = 257;

  std::string name() const override { return "bytes"; }
  std::string sha256() const override;
  std::int64_t vocab_size() const override { return 258; }
  std::int32_t eos() const override { return kEndOfText; }
  std::vector<std::int32_t> encode(std::string_view text) const override;
  std::string decode(std::span<const std::int32_t> ids) const override;
};

// "bytes". Any other name is an Error (Fault::usage) that lists the choices, or, for kUnknownTokenizer, says whose it
// is.
std::unique_ptr<Tokenizer> make_tokenizer(std::string_view name);

}  // namespace switchyard
