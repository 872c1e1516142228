#include "train/event_file.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <chrono>

#include "dist/host.h"
#include "tensor/error.h"

namespace switchyard {
namespace {

static_assert(std::endian::native == std::endian::little, "both formats are little-endian");

constexpr const char* kPrefix = "events.out.tfevents.";

template <class T>
std::string as_bytes(T value) {
  const auto bytes = std::bit_cast<std::array<char, sizeof(T)>>(value);
  return {bytes.begin(), bytes.end()};
}

// Protocol buffers, as much of them as is needed: a field is its number and wire type, and then its value.
enum class Wire { varint, bits64, bytes, bits32 = 5 };

std::string varint(std::uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}
std::string key(int field, Wire wire) {
  return varint(static_cast<std::uint64_t>(field) << 3 | static_cast<std::uint64_t>(wire));
}
std::string integer_field(int field, std::int64_t value) {
  return key(field, Wire::varint) + varint(static_cast<std::uint64_t>(value));
}
std::string double_field(int field, double value) { return key(field, Wire::bits64) + as_bytes(value); }
std::string float_field(int field, float value) { return key(field, Wire::bits32) + as_bytes(value); }
std::string bytes_field(int field, const std::string& bytes) {
  return key(field, Wire::bytes) + varint(bytes.size()) + bytes;
}

// Numbers of fields, from tensorboard/compat/proto/{event,summary,histogram}.proto.
namespace event {
constexpr int wall_time = 1, step = 2, file_version = 3, summary = 5, session_log = 7;
}
namespace session_log {
constexpr int status = 1, start = 1;
}
namespace summary {
constexpr int value = 1, tag = 1, simple_value = 2, histo = 5;
}
namespace histogram {
constexpr int min = 1, max = 2, num = 3, sum = 4, sum_squares = 5, bucket_limit = 6, bucket = 7;
}

constexpr std::array<std::uint32_t, 256> kCrcOfByte = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    table[byte] = crc;
  }
  return table;
}();

// So that the sum of data which hold sums is no weak one (TensorFlow's lib/hash/crc32c.h).
std::uint32_t masked(std::uint32_t crc) { return std::rotr(crc, 15) + 0xa282ead8u; }

std::string event_at(std::int64_t step) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return double_field(event::wall_time, std::chrono::duration<double>(now).count()) + integer_field(event::step, step);
}

// The time in a name sorts it: seconds since 1970, of ten digits, later than those of all files there.
std::string file_name(const std::filesystem::path& dir) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  std::int64_t time = std::chrono::duration_cast<std::chrono::seconds>(now).count();
  for (const auto& entry : std::filesystem::directory_iterator(dir)) {
    const std::string name = entry.path().filename();
    std::int64_t before = 0;
    if (name.starts_with(kPrefix) &&
        std::from_chars(name.data() + std::string(kPrefix).size(), name.data() + name.size(), before).ec == std::errc{})
      time = std::max(time, before + 1);
  }
  std::string digits = std::to_string(time);
  digits.insert(0, digits.size() < 10 ? 10 - digits.size() : 0, '0');
  return text(kPrefix, digits, ".", host_name(), ".", getpid());
}

}  // namespace

std::uint32_t crc32c(std::span<const char> bytes) {
  std::uint32_t crc = ~0u;
  for (const char byte : bytes) crc = crc >> 8 ^ kCrcOfByte[(crc ^ static_cast<unsigned char>(byte)) & 0xff];
  return ~crc;
}

void EventSummary::add(const std::string& tag, const std::string& value) {
  bytes_ += bytes_field(summary::value, bytes_field(summary::tag, tag) + value);
}

void EventSummary::scalar(const std::string& tag, double value) {
  add(tag, float_field(summary::simple_value, static_cast<float>(value)));
}

void EventSummary::bars(const std::string& tag, std::span<const double> heights) {
  std::string limits, counts;
  double num = 0, sum = 0, sum_squares = 0;
  for (std::size_t i = 0; i < heights.size(); ++i) {
    const double middle = static_cast<double>(i) + 0.5;
    limits += as_bytes(static_cast<double>(i + 1));
    counts += as_bytes(heights[i]);
    num += heights[i];
    sum += heights[i] * middle;
    sum_squares += heights[i] * middle * middle;
  }
  add(tag,
      bytes_field(summary::histo,
                  double_field(histogram::min, 0) + double_field(histogram::max, static_cast<double>(heights.size())) +
                      double_field(histogram::num, num) + double_field(histogram::sum, sum) +
                      double_field(histogram::sum_squares, sum_squares) + bytes_field(histogram::bucket_limit, limits) +
                      bytes_field(histogram::bucket, counts)));
}

EventFile::EventFile(const std::filesystem::path& dir, std::int64_t first_step)
    : path_(dir / file_name(dir)), out_(path_, std::ios::binary) {
  write_event(event_at(0) + bytes_field(event::file_version, "brain.Event:2"));
  write_event(event_at(first_step) +
              bytes_field(event::session_log, integer_field(session_log::status, session_log::start)));
}

void EventFile::write(std::int64_t step, const EventSummary& summary) {
  write_event(event_at(step) + bytes_field(event::summary, summary.bytes()));
}

// A TFRecord: length, its sum, data, their sum.
void EventFile::write_event(const std::string& event) {
  const std::string length = as_bytes(std::uint64_t{event.size()});
  out_ << length << as_bytes(masked(crc32c(length))) << event << as_bytes(masked(crc32c(event))) << std::flush;
  SY_REQUIRE(out_, Fault::data, "cannot write ", path_.string(), "; is the disk full?");
}

}  // namespace switchyard
