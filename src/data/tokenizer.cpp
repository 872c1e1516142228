#include "data/tokenizer.h"

#include "files/sha256.h"
#include "tensor/error.h"

namespace switchyard {

std::string ByteTokenizer::sha256() const {
  return switchyard::sha256("bytes: 0-255 are bytes, 256 <|endoftext|>, 257 <|pad|>");
}

std::vector<std::int32_t> ByteTokenizer::encode(std::string_view text) const {
  const std::span bytes(reinterpret_cast<const unsigned char*>(text.data()), text.size());
  std::vector<std::int32_t> ids;
  ids.reserve(bytes.size() + 1);  // one more for the end of the text
  ids.assign(bytes.begin(), bytes.end());
  return ids;
}

std::string ByteTokenizer::decode(std::span<const std::int32_t> ids) const {
  std::string text;
  text.reserve(ids.size());
  for (const std::int32_t id : ids) {
    if (0 <= id && id < 256)
      text += static_cast<char>(id);
    else if (id == kEndOfText)
      text += "<|endoftext|>";
    else if (id == kPad)
      text += "<|pad|>";
    else
      text += "\xEF\xBF\xBD";
  }
  return text;
}

std::unique_ptr<Tokenizer> make_tokenizer(std::string_view name) {
  SY_REQUIRE(
      name != kUnknownTokenizer, Fault::usage,
      "nothing tells which tokenizer made the tokens of this run, so text cannot be made of them: a token file of "
      "data.train has no .json beside it, as `switchyard tokenize` writes");
  SY_REQUIRE(name == "bytes", Fault::usage, "no tokenizer is called '", name, "'; there is: bytes");
  return std::make_unique<ByteTokenizer>();
}

}  // namespace switchyard
