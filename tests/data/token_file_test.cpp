#include "data/token_file.h"

#include <cstring>

#include "data/temp_dir.h"
#include "data/token_file_verify.h"
#include "data/token_file_writer.h"

namespace switchyard {
namespace {

using Ids = std::vector<std::int32_t>;

// A vocabulary too large for two bytes a token.
class WideTokenizer final : public Tokenizer {
 public:
  std::string name() const override { return "wide"; }
  std::string sha256() const override { return "wide"; }
  std::int64_t vocab_size() const override { return 100'000; }
  std::int32_t eos() const override { return 0; }
  Ids encode(std::string_view) const override { return {}; }
  std::string decode(std::span<const std::int32_t>) const override { return {}; }
};

// Two documents: {65, 256} and {66, 67, 256}; the bytes as the format's definition gives them.
const std::string kBin("\x41\0\0\x01\x42\0\x43\0\0\x01", 10);
const std::string kIdx =
    std::string("MMIDIDX\0\0", 9) + std::string("\x01\0\0\0\0\0\0\0", 8) + "\x08" +  // version 1, u16
    std::string("\x02\0\0\0\0\0\0\0", 8) + std::string("\x03\0\0\0\0\0\0\0", 8) +    // 2 sequences, 3 bounds
    std::string("\x02\0\0\0\x03\0\0\0", 8) +                                         // lengths
    std::string("\0\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0", 16) +                          // byte pointers
    std::string("\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0", 24);         // document bounds

void write_tiny(const std::string& prefix) {
  TokenFileWriter writer(prefix, ByteTokenizer());
  writer.add_document(Ids{65, 256}, "a");
  writer.add_document(Ids{66, 67, 256}, "b");
  writer.finish();
}

Ids read_all(const TokenFile& file) {
  Ids tokens(static_cast<std::size_t>(file.tokens()));
  file.read(0, tokens);
  return tokens;
}

template <class T>
std::string with(std::string bytes, std::size_t offset, T value) {
  std::memcpy(bytes.data() + offset, &value, sizeof(T));
  return bytes;
}

TEST(TokenFile, WritesTheFormatByteForByte) {
  const TempDir dir;
  write_tiny(dir / "sub/tiny");
  EXPECT_EQ(read_file(dir / "sub/tiny.bin"), kBin);
  EXPECT_EQ(read_file(dir / "sub/tiny.idx"), kIdx);
  EXPECT_EQ(dir.files(), 1);
}

TEST(TokenFile, ReadsAForeignPairWithoutDescription) {
  const TempDir dir;
  write_file(dir / "tiny.bin", kBin);
  write_file(dir / "tiny.idx", kIdx);
  const TokenFile file(dir / "tiny");
  EXPECT_FALSE(file.info());
  EXPECT_EQ(file.type(), TokenType::u16);
  EXPECT_EQ(file.documents(), 2);
  EXPECT_EQ(file.sequences(), 2);
  EXPECT_EQ(read_all(file), (Ids{65, 256, 66, 67, 256}));
  EXPECT_EQ(file.document(0).begin, 0);
  EXPECT_EQ(file.document(1).begin, 2);
  EXPECT_EQ(file.document(1).end, 5);
  Ids middle(3);
  file.read(1, middle);
  EXPECT_EQ(middle, (Ids{256, 66, 67}));
  EXPECT_THROW(file.read(3, middle), Error);

  // One mode byte a sequence may follow, and a document may be several sequences.
  write_file(dir / "tiny.idx", with(with(kIdx, 26, std::uint64_t{2}), 66, std::int64_t{2}).substr(0, 74) + "\1\1");
  const TokenFile joined(dir / "tiny");
  EXPECT_EQ(joined.documents(), 1);
  EXPECT_EQ(joined.document(0).end, 5);
}

TEST(TokenFile, ReadsOneAndFourBytesAToken) {
  const TempDir dir;
  write_file(dir / "bytes.bin", "\x05\xff\x07");
  write_file(
      dir / "bytes.idx",
      with(with(with(with(kIdx, 17, std::uint8_t{1}), 34, std::int32_t{1}), 38, std::int32_t{2}), 50, std::int64_t{1}));
  EXPECT_EQ(read_all(TokenFile(dir / "bytes")), (Ids{5, 255, 7}));

  TokenFileWriter writer(dir / "wide", WideTokenizer());
  writer.add_document(Ids{99'999, 0});
  writer.add_document({});
  EXPECT_EQ(writer.finish().documents, 2);
  const TokenFile wide(dir / "wide");
  EXPECT_EQ(wide.type(), TokenType::i32);
  EXPECT_EQ(read_all(wide), (Ids{99'999, 0}));
  EXPECT_EQ(wide.document(1).begin, wide.document(1).end);
}

TEST(TokenFile, DescriptionComesBack) {
  const TempDir dir;
  TokenFileWriter writer(dir / "x", ByteTokenizer());
  const Ids document{1, 256};
  for (const char* domain : {"a", "a", "", "a", "b"}) writer.add_document(document, domain);
  const TokenFileInfo info = writer.finish();
  EXPECT_EQ(info.domains, (std::vector<DomainRange>{{"a", 0, 2}, {"a", 3, 1}, {"b", 4, 1}}));
  EXPECT_EQ(info.tokenizer, "bytes");
  EXPECT_EQ(info.vocab_size, 258);
  EXPECT_EQ(info.tokens, 10);
  EXPECT_EQ(TokenFile(dir / "x").info(), info);
  EXPECT_TRUE(verify_token_file(dir / "x").good());
}

TEST(TokenFile, UnfinishedWriterLeavesTheOldFilesAlone) {
  const TempDir dir;
  write_tiny(dir / "x");
  {
    TokenFileWriter writer(dir / "x", ByteTokenizer());
    writer.add_document(Ids{1});
    expect_error(Fault::data, {"x.bin.tmp", "another process"},
                 [&] { TokenFileWriter second(dir / "x", ByteTokenizer()); });
  }
  EXPECT_EQ(dir.files(), 3);
  EXPECT_EQ(read_file(dir / "x.idx"), kIdx);
  EXPECT_EQ(read_file(dir / "x.bin"), kBin);
}

TEST(TokenFile, WriterRefusesTokensOutsideItsVocabulary) {
  const TempDir dir;
  TokenFileWriter writer(dir / "x", ByteTokenizer());
  EXPECT_THROW(writer.add_document(Ids{258}), Error);
  EXPECT_THROW(writer.add_document(Ids{-1}), Error);
}

TEST(TokenFile, EveryBrokenIndexSaysWhatIsWrong) {
  const TempDir dir;
  const std::string prefix = dir / "x";
  const auto expect = [&](const std::string& bin, const std::string& idx, std::initializer_list<std::string> parts) {
    write_file(prefix + ".bin", bin);
    write_file(prefix + ".idx", idx);
    expect_error(Fault::data, parts, [&] { TokenFile file(prefix); });
  };
  const std::uint64_t huge = ~std::uint64_t{0} / 12 + 1;  // 12 of them overflow to 8
  expect(kBin, "MMIDIDX", {"x.idx", "34", "got 7"});
  expect(kBin, with(kIdx, 3, 'x'), {"x.idx", "not a Megatron index"});
  expect(kBin, with(kIdx, 9, std::uint64_t{2}), {"x.idx", "wanted version 1, got 2"});
  expect(kBin, with(kIdx, 17, std::uint8_t{7}), {"x.idx", "u16", "got type 7"});
  expect(kBin, with(kIdx, 18, std::uint64_t{3}), {"x.idx", "3 sequences", "94 bytes", "has 82"});
  expect(kBin, with(kIdx, 18, huge), {"x.idx", "want more bytes", "has 82"});
  expect(kBin, with(kIdx, 26, ~std::uint64_t{0}), {"x.idx", "want more bytes", "has 82"});
  expect(kBin, kIdx.substr(0, 81), {"x.idx", "82 bytes", "has 81"});
  expect(kBin, kIdx + "abc", {"x.idx", "82 bytes", "has 85"});
  expect(kBin, with(kIdx, 34, std::int32_t{-2}), {"x.idx", "sequence 0 has -2 tokens"});
  expect(kBin, with(kIdx, 50, std::int64_t{6}), {"x.idx", "sequence 1", "byte pointer 4", "got 6"});
  expect(kBin, with(kIdx, 42, std::int64_t{-4}), {"x.idx", "sequence 0", "byte pointer 0", "got -4"});
  expect(kBin, with(kIdx, 38, std::int32_t{4}), {"x.bin", "sequence 1 ends at byte 12", "has 10"});
  expect(kBin.substr(0, 9), kIdx, {"x.bin", "sequence 1 ends at byte 10", "has 9"});
  expect("", kIdx, {"x.bin", "has 0"});
  expect(kBin + "z", kIdx, {"x.bin", "wants 10 bytes, the file has 11"});
  expect(kBin, with(kIdx, 58, std::int64_t{1}), {"x.idx", "document bound 0", "wanted 0, got 1"});
  expect(kBin, with(kIdx, 66, std::int64_t{3}), {"x.idx", "document bound 1", "0 to 2", "got 3"});
  expect(kBin, with(kIdx, 66, std::int64_t{-1}), {"x.idx", "document bound 1", "got -1"});
  expect(kBin, with(kIdx, 74, std::int64_t{1}), {"x.idx", "ends at sequence 1 of 2"});
  expect(kBin, with(kIdx, 26, std::uint64_t{0}).substr(0, 58), {"x.idx", "at least one document bound"});
  write_file(prefix + ".idx", kIdx);
  write_file(prefix + ".bin", kBin);
  EXPECT_NO_THROW(TokenFile{prefix});
}

TEST(TokenFile, MissingFilesAndWrongNames) {
  const TempDir dir;
  expect_error(Fault::data, {"none.idx", "No such file"}, [&] { TokenFile file(dir / "none"); });
  write_tiny(dir / "x");
  expect_error(Fault::data, {"x.bin", "leave out the extension"}, [&] { TokenFile file(dir / "x.bin"); });
  std::filesystem::remove(dir / "x.bin");
  expect_error(Fault::data, {"x.bin", "No such file"}, [&] { TokenFile file(dir / "x"); });
  std::filesystem::create_directory(dir / "x.bin");
  expect_error(Fault::data, {"x.bin", "not a regular file"}, [&] { TokenFile file(dir / "x"); });
}

TEST(TokenFile, BrokenDescriptionIsRefused) {
  const TempDir dir;
  write_tiny(dir / "x");
  const std::string json = read_file(dir / "x.json");
  const auto expect = [&](const std::string& from, const std::string& to, std::initializer_list<std::string> parts) {
    ASSERT_NE(json.find(from), std::string::npos) << json;
    write_file(dir / "x.json", std::string(json).replace(json.find(from), from.size(), to));
    expect_error(Fault::data, parts, [&] { TokenFile file(dir / "x"); });
  };
  expect("{", "", {"x.json", "not the description"});
  expect("\"version\": 1", "\"version\": 2", {"x.json", "version 1", "version 2"});
  expect("\"tokens\": 5", "\"tokens\": 6", {"x.json", "6 tokens", "hold 2 and 5"});
  expect("\"tokens\": 5", "\"tokens\": \"5\"", {"x.json", "not the description"});
  expect("\"idx_sha256\"", "\"sha\"", {"x.json", "idx_sha256"});
}

TEST(TokenFile, CutWhileMappedIsAnErrorAndNotASignal) {
  const TempDir dir;
  TokenFileWriter writer(dir / "x", ByteTokenizer());
  writer.add_document(Ids(10'000, 7));
  writer.finish();
  const TokenFile file(dir / "x");
  std::filesystem::resize_file(dir / "x.bin", 100);
  Ids tokens(1);
  expect_error(Fault::data, {"x.bin", "cut", "20000", "has 100"}, [&] { file.read(9'999, tokens); });
}

TEST(TokenFile, VocabularyMustFitTheModel) {
  const TempDir dir;
  write_tiny(dir / "x");
  check_vocabulary(TokenFile(dir / "x"), 258);
  expect_error(Fault::data, {"/x", "bytes", "258", "257"}, [&] { check_vocabulary(TokenFile(dir / "x"), 257); });
  std::filesystem::remove(dir / "x.json");
  check_vocabulary(TokenFile(dir / "x"), 2);
}

TEST(TokenFile, TheTokenizerOfARunIsTheOneThatItsFilesName) {
  const TempDir dir;
  write_tiny(dir / "a");
  write_tiny(dir / "b");
  write_tiny(dir / "foreign");
  std::filesystem::remove(dir / "foreign.json");
  TokenFileWriter wide(dir / "wide", WideTokenizer());
  wide.add_document(Ids{7});
  wide.finish();
  const auto of = [&](std::initializer_list<const char*> train, std::initializer_list<const char*> valid) {
    DataConfig data;
    for (const char* name : train) data.train.push_back({.path = dir / name});
    for (const char* name : valid) data.valid.push_back({.path = dir / name});
    return tokenizer_of(data);
  };
  const TokenizerId bytes{"bytes", ByteTokenizer().sha256()}, unknown{"unknown", ""};
  EXPECT_EQ(of({"a", "b"}, {"a"}), bytes);
  EXPECT_EQ(of({"wide"}, {}), (TokenizerId{"wide", "wide"}));
  EXPECT_EQ(of({"a"}, {"foreign"}), bytes);
  EXPECT_EQ(of({"foreign"}, {}), unknown);
  EXPECT_EQ(of({"a", "foreign"}, {"b"}), unknown);
  expect_error(Fault::data, {dir / "wide.json", dir / "a.json", "wide", "bytes"}, [&] { of({"a", "b", "wide"}, {}); });
  expect_error(Fault::data, {dir / "wide.json", dir / "a.json"}, [&] { of({"a", "foreign"}, {"wide"}); });
}

TEST(TokenFile, FingerprintFollowsTheContents) {
  const TempDir dir;
  write_tiny(dir / "x");
  write_tiny(dir / "y");
  EXPECT_EQ(TokenFile(dir / "x").fingerprint(), TokenFile(dir / "y").fingerprint());
  TokenFileWriter writer(dir / "y", ByteTokenizer());
  writer.add_document(Ids{65, 256});
  writer.add_document(Ids{66, 68, 256});
  writer.finish();
  EXPECT_NE(TokenFile(dir / "x").fingerprint(), TokenFile(dir / "y").fingerprint());
}

TEST(VerifyTokenFile, ReportsWhatAFullScanSees) {
  const TempDir dir;
  write_tiny(dir / "x");
  const TokenFileReport report = verify_token_file(dir / "x");
  EXPECT_TRUE(report.good());
  EXPECT_TRUE(report.described);
  EXPECT_EQ(report.documents, 2);
  EXPECT_EQ(report.tokens, 5);
  EXPECT_EQ(report.longest_document, 3);
  EXPECT_EQ(report.min_token, 65);
  EXPECT_EQ(report.max_token, 256);
  EXPECT_EQ(report.domains.size(), 2u);
}

TEST(VerifyTokenFile, FindsFlippedBitsAndForeignTokens) {
  const TempDir dir;
  write_tiny(dir / "x");
  write_file(dir / "x.bin", with(kBin, 4, '\x41'));
  TokenFileReport report = verify_token_file(dir / "x");
  ASSERT_EQ(report.problems.size(), 1u);
  EXPECT_NE(report.problems[0].find("x.bin: wanted SHA-256"), std::string::npos) << report.problems[0];

  write_file(dir / "x.bin", with(kBin, 6, std::uint16_t{300}));
  report = verify_token_file(dir / "x");
  ASSERT_EQ(report.problems.size(), 2u);
  EXPECT_NE(report.problems[1].find("1 tokens are outside [0, 258), the first at 3"), std::string::npos)
      << report.problems[1];

  std::filesystem::remove(dir / "x.json");
  EXPECT_TRUE(verify_token_file(dir / "x").good());
  EXPECT_FALSE(verify_token_file(dir / "x").described);
  EXPECT_FALSE(verify_token_file(dir / "x", 300).good());
  EXPECT_TRUE(verify_token_file(dir / "x", 301).good());
}

TEST(VerifyTokenFile, FindsDomainsThatAreNotDocuments) {
  const TempDir dir;
  write_tiny(dir / "x");
  std::string json = read_file(dir / "x.json");
  const std::string second = "\"first\": 1";
  write_file(dir / "x.json", json.replace(json.find(second), second.size(), "\"first\": 2"));
  const TokenFileReport report = verify_token_file(dir / "x");
  ASSERT_EQ(report.problems.size(), 1u);
  EXPECT_NE(report.problems[0].find("domain b"), std::string::npos) << report.problems[0];
}

}  // namespace
}  // namespace switchyard
