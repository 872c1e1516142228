#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace switchyard {

struct Document {
  std::string text;
  std::string domain;  // empty: the file names none
};

// Calls `take` with every document of a text file in order; returns the file's bytes. A name that ends in .jsonl is one
// JSON object a line, with "text", perhaps "domain", and whatever else; blank lines mean nothing. Any other file is
// one document, or several where `separator` is not empty: they end at lines that read exactly so. Empty documents are
// left out. Unreadable files, files without a document and lines that are not as above are an Error (Fault::data) with
// file and line.
std::int64_t read_documents(const std::string& path, const std::string& separator,
                            const std::function<void(const Document&)>& take);

}  // namespace switchyard
