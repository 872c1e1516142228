#include "data/token_file_writer.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <limits>

#include "tensor/error.h"

namespace switchyard {
namespace {

// Small enough for the first-level cache.
constexpr std::size_t kPiece = 4096;

void write_u16(OutputFile& file, std::span<const std::int32_t> tokens) {
  std::array<std::uint16_t, kPiece> packed;
  while (!tokens.empty()) {
    const std::size_t n = std::min(tokens.size(), kPiece);
    for (std::size_t i = 0; i < n; ++i) packed[i] = static_cast<std::uint16_t>(tokens[i]);
    file.write(std::as_bytes(std::span(packed).first(n)));
    tokens = tokens.subspan(n);
  }
}

}  // namespace

TokenFileWriter::TokenFileWriter(std::string prefix, const Tokenizer& tokenizer)
    : prefix_(std::move(prefix)),
      type_(type_for(tokenizer.vocab_size())),
      bin_(prefix_ + ".bin"),
      idx_(prefix_ + ".idx"),
      json_(prefix_ + ".json") {
  info_.tokenizer = tokenizer.name();
  info_.tokenizer_sha256 = tokenizer.sha256();
  info_.vocab_size = tokenizer.vocab_size();
}

void TokenFileWriter::add_document(std::span<const std::int32_t> tokens, std::string_view domain) {
  SY_REQUIRE(tokens.size() <= std::numeric_limits<std::int32_t>::max(), Fault::data, prefix_, ".idx: document ",
             info_.documents, " has ", tokens.size(), " tokens; the format ends at 2^31 - 1: split it");
  // Negative ids compare as large ones.
  std::uint32_t largest = 0;
  for (const std::int32_t token : tokens) largest = std::max(largest, static_cast<std::uint32_t>(token));
  SY_CHECK(largest < info_.vocab_size, "token ", largest, " of a vocabulary of ", info_.vocab_size);

  if (type_ == TokenType::u16)
    write_u16(bin_, tokens);
  else
    bin_.write(std::as_bytes(tokens));
  lengths_.push_back(static_cast<std::int32_t>(tokens.size()));

  auto& domains = info_.domains;
  if (!domain.empty()) {
    const bool goes_on = !domains.empty() && domains.back().domain == domain &&
                         domains.back().first + domains.back().count == info_.documents;
    if (!goes_on) domains.push_back({std::string(domain), info_.documents, 0});
    ++domains.back().count;
  }
  ++info_.documents;
  info_.tokens += static_cast<std::int64_t>(tokens.size());
}

void TokenFileWriter::write_index() {
  idx_.write(std::as_bytes(std::span(TokenFile::kMagic, 9)));
  idx_.write_value(TokenFile::kVersion);
  idx_.write_value(type_);
  idx_.write_value(std::uint64_t{lengths_.size()});
  idx_.write_value(std::uint64_t{lengths_.size() + 1});
  idx_.write(std::as_bytes(std::span(lengths_)));
  std::int64_t pointer = 0;
  for (const std::int32_t length : lengths_) {
    idx_.write_value(pointer);
    pointer += length * static_cast<std::int64_t>(size_of(type_));
  }
  for (std::int64_t document = 0; document <= info_.documents; ++document) idx_.write_value(document);
}

TokenFileInfo TokenFileWriter::finish() {
  write_index();
  info_.bin_sha256 = bin_.finish();
  info_.idx_sha256 = idx_.finish();
  const std::string json = to_json(info_);
  json_.write(std::as_bytes(std::span(json)));
  json_.finish();

  // An older .idx must be gone before the new .bin takes its place.
  std::error_code failure;
  std::filesystem::remove(prefix_ + ".idx", failure);
  SY_REQUIRE(!failure, Fault::data, prefix_, ".idx: cannot replace: ", failure.message());
  sync_directory_of(prefix_);
  bin_.publish();
  json_.publish();
  sync_directory_of(prefix_);
  idx_.publish();
  sync_directory_of(prefix_);
  return info_;
}

}  // namespace switchyard
