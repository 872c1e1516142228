#include "data/token_file_verify.h"

#include <algorithm>

#include "files/sha256.h"
#include "tensor/error.h"

namespace switchyard {
namespace {

constexpr std::int64_t kPiece = 1 << 20;

std::string hash_of(const MappedFile& file) {
  Sha256 hash;
  for (std::size_t at = 0; at < file.size(); at += kPiece)
    hash.update(file.bytes(at, std::min<std::size_t>(kPiece, file.size() - at)));
  return hash.hex();
}

void scan_tokens(TokenFileReport& report, const TokenFile& file, std::int64_t vocab_size) {
  std::vector<std::int32_t> piece;
  std::int64_t wrong = 0, first_wrong = -1;
  for (std::int64_t at = 0; at < file.tokens(); at += kPiece) {
    piece.resize(static_cast<std::size_t>(std::min(kPiece, file.tokens() - at)));
    file.read(at, piece);
    const auto [min, max] = std::ranges::minmax(piece);
    report.min_token = at == 0 ? min : std::min(report.min_token, min);
    report.max_token = at == 0 ? max : std::max(report.max_token, max);
    const auto outside = [&](std::int32_t token) { return token < 0 || (vocab_size > 0 && token >= vocab_size); };
    if (!outside(min) && !outside(max)) continue;
    if (wrong == 0) first_wrong = at + (std::ranges::find_if(piece, outside) - piece.begin());
    wrong += std::ranges::count_if(piece, outside);
  }
  if (wrong == 0) return;
  const std::string range = vocab_size > 0 ? text("[0, ", vocab_size, ")") : text("[0, 2^31)");
  report.problems.push_back(text(file.bin().path(), ": ", wrong, " tokens are outside ", range, ", the first at ",
                                 first_wrong, "; smallest ", report.min_token, ", largest ", report.max_token));
}

void compare_hash(TokenFileReport& report, const MappedFile& file, const std::string& wanted) {
  const std::string got = hash_of(file);
  if (got != wanted) report.problems.push_back(text(file.path(), ": wanted SHA-256 ", wanted, ", got ", got));
}

void check_domains(TokenFileReport& report) {
  std::int64_t end = 0;
  for (const DomainRange& range : report.domains) {
    if (range.first < end || range.count < 1 || range.count > report.documents - range.first) {
      report.problems.push_back(text(report.prefix, ".json: domain ", range.domain, " claims ", range.count,
                                     " documents from ", range.first, " on; wanted some of ", end, " to ",
                                     report.documents));
      return;
    }
    end = range.first + range.count;
  }
}

}  // namespace

TokenFileReport verify_token_file(const std::string& prefix, std::int64_t vocab_size) {
  const TokenFile file(prefix);
  TokenFileReport report{.prefix = prefix,
                         .type = file.type(),
                         .documents = file.documents(),
                         .sequences = file.sequences(),
                         .tokens = file.tokens(),
                         .described = file.info().has_value(),
                         .domains = {},
                         .problems = {}};
  for (std::int64_t i = 0; i < file.documents(); ++i) {
    const auto [begin, end] = file.document(i);
    report.longest_document = std::max(report.longest_document, end - begin);
  }
  if (const auto& info = file.info()) {
    vocab_size = vocab_size > 0 ? std::min(vocab_size, info->vocab_size) : info->vocab_size;
    compare_hash(report, file.bin(), info->bin_sha256);
    compare_hash(report, file.idx(), info->idx_sha256);
    report.domains = info->domains;
    check_domains(report);
  }
  scan_tokens(report, file, vocab_size);
  return report;
}

}  // namespace switchyard
