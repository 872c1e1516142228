#include "data/tokenizer.h"

#include "data/temp_dir.h"
#include "files/sha256.h"
#include "tensor/philox.h"

namespace switchyard {
namespace {

TEST(Sha256, MatchesTheStandardsExamples) {
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  Sha256 pieces;
  pieces.update("a");
  pieces.update("");
  pieces.update("bc");
  EXPECT_EQ(pieces.hex(), sha256("abc"));
}

TEST(ByteTokenizer, AnyBytesComeBack) {
  const ByteTokenizer tokenizer;
  std::string bytes;
  for (std::uint64_t i = 0; i < 4096; ++i) bytes += static_cast<char>(philox({1, 2}, i)[0]);
  for (int byte = 0; byte < 256; ++byte) bytes += static_cast<char>(byte);
  const auto ids = tokenizer.encode(bytes);
  ASSERT_EQ(ids.size(), bytes.size());
  for (std::size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(ids[i], static_cast<unsigned char>(bytes[i]));
  EXPECT_EQ(tokenizer.decode(ids), bytes);
  EXPECT_TRUE(tokenizer.encode("").empty());
}

TEST(ByteTokenizer, SpecialTokensAreOutsideTheBytes) {
  const ByteTokenizer tokenizer;
  EXPECT_EQ(tokenizer.eos(), 256);
  EXPECT_EQ(tokenizer.vocab_size(), 258);
  EXPECT_EQ(tokenizer.decode(std::vector<std::int32_t>{'a', 256, 257, 300, -1}),
            "a<|endoftext|><|pad|>\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(tokenizer.encode("<|endoftext|>").size(), 13u);  // the word in a text ends nothing
}

TEST(Tokenizer, UnknownNameListsTheChoices) {
  EXPECT_EQ(make_tokenizer("bytes")->name(), "bytes");
  EXPECT_EQ(make_tokenizer("bytes")->sha256(), ByteTokenizer().sha256());
  expect_error(Fault::usage, {"'byte'", "bytes"}, [] { make_tokenizer("byte"); });
  expect_error(Fault::usage, {"nothing tells which tokenizer", ".json"}, [] { make_tokenizer(kUnknownTokenizer); });
}

}  // namespace
}  // namespace switchyard
