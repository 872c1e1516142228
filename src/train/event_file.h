#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>

namespace switchyard {

// What one event of an event file shows, each value under its tag: "train/loss" is the chart `loss` of the card
// `train`.
class EventSummary {
 public:
  void scalar(const std::string& tag, double value);
  // A bar [i, i + 1) of each height.
  void bars(const std::string& tag, std::span<const double> heights);

  // As the protocol buffer tensorflow.Summary.
  const std::string& bytes() const { return bytes_; }

 private:
  void add(const std::string& tag, const std::string& value);
  std::string bytes_;
};

// CRC-32C (Castagnoli, RFC 3720 appendix B.4), of which TFRecord stores a masked form.
std::uint32_t crc32c(std::span<const char> bytes);

// A file that TensorBoard reads: TFRecords of the protocol buffer tensorflow.Event. Each event is on disk when write()
// returns; a full disk is Error (Fault::data).
class EventFile {
 public:
  // A new file in `dir`, which sorts behind those already there, for readers take them in that order. It has them
  // forget what those say of `first_step` and later.
  EventFile(const std::filesystem::path& dir, std::int64_t first_step);

  void write(std::int64_t step, const EventSummary& summary);

 private:
  void write_event(const std::string& event);

  std::filesystem::path path_;
  std::ofstream out_;
};

}  // namespace switchyard
