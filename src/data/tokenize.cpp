#include "data/tokenize.h"

#include "data/documents.h"
#include "data/token_file_writer.h"
#include "tensor/error.h"

namespace switchyard {

TokenizeSummary tokenize_files(std::span<const std::string> paths, const std::string& prefix,
                               const Tokenizer& tokenizer, const TokenizeOptions& options) {
  SY_REQUIRE(!paths.empty(), Fault::usage, "no file to tokenize");
  TokenFileWriter writer(prefix, tokenizer);
  TokenizeSummary summary;
  for (const std::string& path : paths) {
    summary.bytes += read_documents(path, options.separator, [&](const Document& document) {
      std::vector<std::int32_t> tokens = tokenizer.encode(document.text);
      tokens.push_back(tokenizer.eos());
      writer.add_document(tokens, document.domain.empty() ? options.domain : document.domain);
    });
    ++summary.files;
  }
  const TokenFileInfo info = writer.finish();
  summary.documents = info.documents;
  summary.tokens = info.tokens;
  return summary;
}

}  // namespace switchyard
