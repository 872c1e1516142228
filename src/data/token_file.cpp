#include "data/token_file.h"

#include <bit>
#include <cstring>

#include "files/sha256.h"
#include "tensor/error.h"

namespace switchyard {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

// The arrays begin at byte 34, so nothing is aligned: values are copied out, never pointed at.
template <class T>
T value_at(std::span<const std::byte> bytes, std::size_t offset, std::size_t index = 0) {
  T value;
  std::memcpy(&value, bytes.data() + offset + index * sizeof(T), sizeof(T));
  return value;
}

template <class T>
void widen(std::span<std::int32_t> out, const std::byte* in) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    T token;
    std::memcpy(&token, in + i * sizeof(T), sizeof(T));
    out[i] = token;
  }
}

std::string without_extension(std::string prefix) {
  SY_REQUIRE(!prefix.ends_with(".bin") && !prefix.ends_with(".idx"), Fault::data, prefix,
             ": wanted the common prefix of a token file's .bin and .idx: leave out the extension");
  return prefix;
}

}  // namespace

TokenFile::TokenFile(std::string prefix)
    : prefix_(without_extension(std::move(prefix))),
      idx_(prefix_ + ".idx"),
      bin_(prefix_ + ".bin"),
      info_(read_token_file_info(prefix_ + ".json")) {
  check_header();
  check_sequences();
  check_documents();
  check_info();
}

void TokenFile::check_header() {
  const std::string& path = idx_.path();
  SY_REQUIRE(idx_.size() >= kHeaderBytes, Fault::data, path, ": wanted at least ", kHeaderBytes,
             " bytes of header, got ", idx_.size());
  const auto idx = idx_.bytes(0, kHeaderBytes);
  SY_REQUIRE(std::memcmp(idx.data(), kMagic, 9) == 0, Fault::data, path,
             ": not a Megatron index: wanted the first bytes \"MMIDIDX\\0\\0\"");
  const auto version = value_at<std::uint64_t>(idx, 9);
  SY_REQUIRE(version == kVersion, Fault::data, path, ": wanted version ", kVersion, ", got ", version);
  const auto type = value_at<std::uint8_t>(idx, 17);
  type_ = static_cast<TokenType>(type);
  SY_REQUIRE(type_ == TokenType::u8 || type_ == TokenType::u16 || type_ == TokenType::i32, Fault::data, path,
             ": wanted tokens of type 1 (u8), 4 (i32) or 8 (u16), got type ", int{type});

  // Bounding each count by the file's size first keeps the sum from overflowing.
  const auto s = value_at<std::uint64_t>(idx, 18), d = value_at<std::uint64_t>(idx, 26);
  const std::uint64_t size = idx_.size(), room = size - kHeaderBytes;
  const bool fits = s <= room / 12 && d <= room / 8;
  const std::uint64_t wanted = fits ? kHeaderBytes + 12 * s + 8 * d : 0;
  SY_REQUIRE(fits && (size == wanted || size == wanted + s), Fault::data, path, ": ", s, " sequences and ", d,
             " document bounds want ", fits ? std::to_string(wanted) : "more", " bytes, the file has ", size);
  sequences_ = static_cast<std::int64_t>(s);
  documents_ = static_cast<std::int64_t>(d) - 1;
  tokens_ = static_cast<std::int64_t>(bin_.size() / size_of(type_));
}

void TokenFile::check_sequences() const {
  const auto idx = idx_.bytes(0, idx_.size());
  const auto s = static_cast<std::size_t>(sequences_);
  std::uint64_t end = 0;
  for (std::size_t i = 0; i < s; ++i) {
    const auto length = value_at<std::int32_t>(idx, kHeaderBytes, i);
    const auto pointer = value_at<std::int64_t>(idx, kHeaderBytes + 4 * s, i);
    SY_REQUIRE(length >= 0, Fault::data, idx_.path(), ": sequence ", i, " has ", length, " tokens");
    SY_REQUIRE(pointer == static_cast<std::int64_t>(end), Fault::data, idx_.path(), ": sequence ", i,
               ": wanted byte pointer ", end, ", where the one before it ends, got ", pointer);
    end += static_cast<std::uint64_t>(length) * size_of(type_);
    SY_REQUIRE(end <= bin_.size(), Fault::data, bin_.path(), ": sequence ", i, " ends at byte ", end, ", the file has ",
               bin_.size());
  }
  SY_REQUIRE(end == bin_.size(), Fault::data, bin_.path(), ": its index wants ", end, " bytes, the file has ",
             bin_.size());
}

void TokenFile::check_documents() const {
  const auto idx = idx_.bytes(0, idx_.size());
  const std::size_t offset = kHeaderBytes + 12 * static_cast<std::size_t>(sequences_);
  SY_REQUIRE(documents_ >= 0, Fault::data, idx_.path(), ": wanted at least one document bound, got none");
  std::int64_t last = 0;
  for (std::int64_t i = 0; i <= documents_; ++i) {
    const auto bound = value_at<std::int64_t>(idx, offset, static_cast<std::size_t>(i));
    SY_REQUIRE(last <= bound && bound <= sequences_ && (i > 0 || bound == 0), Fault::data, idx_.path(),
               ": document bound ", i, ": wanted ", i > 0 ? text(last, " to ", sequences_) : "0", ", got ", bound);
    last = bound;
  }
  SY_REQUIRE(last == sequences_, Fault::data, idx_.path(), ": the last document ends at sequence ", last, " of ",
             sequences_);
}

void TokenFile::check_info() const {
  if (!info_) return;
  SY_REQUIRE(info_->tokens == tokens_ && info_->documents == documents_, Fault::data, prefix_, ".json: describes ",
             info_->documents, " documents and ", info_->tokens, " tokens, the files beside it hold ", documents_,
             " and ", tokens_);
}

TokenFile::Range TokenFile::document(std::int64_t i) const {
  SY_CHECK(0 <= i && i < documents_, prefix_, ": document ", i, " of ", documents_);
  const auto idx = idx_.bytes(0, idx_.size());
  const auto s = static_cast<std::size_t>(sequences_);
  const auto begin_of = [&](std::int64_t document) {
    const auto sequence = value_at<std::int64_t>(idx, kHeaderBytes + 12 * s, static_cast<std::size_t>(document));
    if (sequence == sequences_) return tokens_;
    const auto byte = value_at<std::int64_t>(idx, kHeaderBytes + 4 * s, static_cast<std::size_t>(sequence));
    return byte / static_cast<std::int64_t>(size_of(type_));
  };
  return {begin_of(i), begin_of(i + 1)};
}

void TokenFile::read(std::int64_t begin, std::span<std::int32_t> out) const {
  const auto count = static_cast<std::int64_t>(out.size());
  SY_CHECK(0 <= begin && begin <= tokens_ && count <= tokens_ - begin, prefix_, ": tokens [", begin, ", +", count,
           ") of ", tokens_);
  const std::byte* in =
      bin_.bytes(static_cast<std::size_t>(begin) * size_of(type_), out.size() * size_of(type_)).data();
  switch (type_) {
    case TokenType::u8: return widen<std::uint8_t>(out, in);
    case TokenType::u16: return widen<std::uint16_t>(out, in);
    case TokenType::i32: return widen<std::int32_t>(out, in);
  }
}

std::string TokenFile::fingerprint() const {
  Sha256 hash;
  hash.update(idx_.bytes(0, idx_.size()));
  hash.update(info_ ? info_->bin_sha256 : std::to_string(bin_.size()));
  return hash.hex();
}

void check_vocabulary(const TokenFile& file, std::int64_t vocab_size) {
  SY_REQUIRE(!file.info() || file.info()->vocab_size <= vocab_size, Fault::data, file.prefix(), ": its tokenizer (",
             file.info()->tokenizer, ") has ", file.info()->vocab_size, " tokens, the model's vocabulary only ",
             vocab_size);
}

}  // namespace switchyard
