#include "data/documents.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tensor/error.h"

namespace switchyard {
namespace {

class LineReader {
 public:
  explicit LineReader(const std::string& path) : path_(path), file_(path, std::ios::binary) {
    SY_REQUIRE(!std::filesystem::is_directory(path), Fault::data, path, ": is a directory");
    SY_REQUIRE(file_, Fault::data, path, ": cannot open: ", std::strerror(errno));
  }

  // The next line without its end; false at the end of the file.
  bool next(std::string& line) {
    const bool some = static_cast<bool>(std::getline(file_, line));
    SY_REQUIRE(!file_.bad(), Fault::data, path_, ": cannot read beyond byte ", bytes_);
    if (!some) return false;
    ++number_;
    ended_ = !file_.eof();
    bytes_ += static_cast<std::int64_t>(line.size()) + ended_;
    return true;
  }

  bool ended() const { return ended_; }  // by a newline, not by the end of the file
  std::int64_t number() const { return number_; }
  std::int64_t bytes() const { return bytes_; }

 private:
  const std::string& path_;
  std::ifstream file_;
  std::int64_t number_ = 0, bytes_ = 0;
  bool ended_ = true;
};

using Take = std::function<void(const Document&)>;

Document parse_line(const std::string& line) {
  const auto json = nlohmann::json::parse(line);
  Document document{.text = json.at("text"), .domain = {}};
  if (json.contains("domain")) document.domain = json.at("domain");
  return document;
}

std::int64_t read_jsonl(const std::string& path, const Take& take) {
  LineReader lines(path);
  std::string line;
  while (lines.next(line)) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    Document document;
    try {
      document = parse_line(line);
    } catch (const nlohmann::json::exception& e) {
      throw Error(text(path, ":", lines.number(), ": wanted a JSON object with a string \"text\": ", e.what()),
                  Fault::data);
    }
    take(document);
  }
  return lines.bytes();
}

std::int64_t read_text(const std::string& path, const std::string& separator, const Take& take) {
  LineReader lines(path);
  Document document;
  std::string line;
  const auto end_document = [&] {
    take(document);
    document.text.clear();
  };
  while (lines.next(line)) {
    if (!separator.empty() && line == separator) {
      end_document();
      continue;
    }
    document.text += line;
    if (lines.ended()) document.text += '\n';
  }
  end_document();
  return lines.bytes();
}

}  // namespace

std::int64_t read_documents(const std::string& path, const std::string& separator, const Take& take) {
  std::int64_t documents = 0;
  const auto count = [&](const Document& document) {
    if (document.text.empty()) return;
    ++documents;
    take(document);
  };
  const std::int64_t bytes = path.ends_with(".jsonl") ? read_jsonl(path, count) : read_text(path, separator, count);
  SY_REQUIRE(documents > 0, Fault::data, path, ": holds no text (", bytes, " bytes)");
  return bytes;
}

}  // namespace switchyard
