#include "data/tokenize.h"

#include "data/temp_dir.h"
#include "data/token_file.h"

namespace switchyard {
namespace {

const ByteTokenizer kBytes;

std::string text_of(const std::string& prefix) {
  const TokenFile file(prefix);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(file.tokens()));
  file.read(0, tokens);
  return kBytes.decode(tokens);
}

TEST(Tokenize, AFileIsADocument) {
  const TempDir dir;
  const std::string binary("one\r\n\n\0two", 10);
  write_file(dir / "a.txt", binary);
  write_file(dir / "b.txt", "three\n");
  const auto summary = tokenize_files(std::vector{dir / "a.txt", dir / "b.txt"}, dir / "out", kBytes);
  EXPECT_EQ(text_of(dir / "out"), binary + "<|endoftext|>three\n<|endoftext|>");
  EXPECT_EQ(summary.files, 2);
  EXPECT_EQ(summary.documents, 2);
  EXPECT_EQ(summary.bytes, 16);
  EXPECT_EQ(summary.tokens, 18);
  EXPECT_TRUE(TokenFile(dir / "out").info()->domains.empty());
}

TEST(Tokenize, SplitsAtSeparatorLines) {
  const TempDir dir;
  write_file(dir / "a.txt", "----\none\n ----\n----\n----\ntwo");
  const auto summary =
      tokenize_files(std::vector{dir / "a.txt"}, dir / "out", kBytes, {.separator = "----", .domain = "d"});
  EXPECT_EQ(text_of(dir / "out"), "one\n ----\n<|endoftext|>two<|endoftext|>");
  EXPECT_EQ(summary.documents, 2);
  EXPECT_EQ(TokenFile(dir / "out").info()->domains, (std::vector<DomainRange>{{"d", 0, 2}}));
}

TEST(Tokenize, ReadsJsonLines) {
  const TempDir dir;
  write_file(dir / "a.jsonl",
             "{\"text\": \"caf\\u00e9\\n\", \"domain\": \"x\", \"more\": [1]}\r\n\n{\"text\": \"\"}\n"
             "{\"text\": \"two\"}\n{\"domain\": \"y\", \"text\": \"three\"}");
  tokenize_files(std::vector{dir / "a.jsonl"}, dir / "out", kBytes, {.separator = {}, .domain = "rest"});
  EXPECT_EQ(text_of(dir / "out"), "caf\xc3\xa9\n<|endoftext|>two<|endoftext|>three<|endoftext|>");
  EXPECT_EQ(TokenFile(dir / "out").info()->domains,
            (std::vector<DomainRange>{{"x", 0, 1}, {"rest", 1, 1}, {"y", 2, 1}}));
}

TEST(Tokenize, BadInputIsOneClearErrorAndNoFile) {
  const TempDir dir;
  const auto expect = [&](const std::string& name, std::initializer_list<std::string> parts) {
    expect_error(Fault::data, parts, [&] { tokenize_files(std::vector{dir / name}, dir / "out", kBytes); });
  };
  const auto expect_line = [&](const std::string& line) {
    write_file(dir / "a.jsonl", "{\"text\": \"fine\"}\n\n" + line + "\n");
    expect("a.jsonl", {"a.jsonl:3:", "\"text\""});
  };
  expect_line("{\"text\": \"cut");
  expect_line("{\"text\": 3}");
  expect_line("{\"title\": \"none\"}");
  expect_line("[\"text\"]");
  expect_line("{\"text\": \"x\", \"domain\": 1}");
  expect_line("{\"text\": \"\xff\"}");
  expect("none.txt", {"none.txt", "No such file"});
  write_file(dir / "empty.txt", "");
  expect("empty.txt", {"empty.txt", "no text", "0 bytes"});
  write_file(dir / "empty.jsonl", "\n\n");
  expect("empty.jsonl", {"empty.jsonl", "no text"});
  std::filesystem::create_directory(dir / "dir");
  expect("dir", {"/dir", "directory"});
  expect_error(Fault::usage, {"no file"}, [&] { tokenize_files({}, dir / "out", kBytes); });
  EXPECT_EQ(dir.files(), 4);
}

TEST(Tokenize, UnwritableOutputIsOneClearError) {
  const TempDir dir;
  write_file(dir / "a.txt", "text");
  expect_error(Fault::data, {"a.txt"}, [&] { tokenize_files(std::vector{dir / "a.txt"}, dir / "a.txt/out", kBytes); });
}

}  // namespace
}  // namespace switchyard
