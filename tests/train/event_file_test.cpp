#include "train/event_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <variant>
#include <vector>

#include "tensor/error.h"
#include "train/tensorboard.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

// A directory that goes with the test.
struct Dir {
  fs::path path = fs::temp_directory_path() / text("switchyard-events-", getpid());
  Dir() { fs::create_directories(path); }
  ~Dir() { fs::remove_all(path); }
};

// The fields of one message by number, decoded by the protocol's own rules: varints, 64 bits, bytes and 32 bits.
using Value = std::variant<std::uint64_t, double, std::string, float>;
using Message = std::multimap<int, Value>;

template <class T>
T take(const std::string& bytes, std::size_t& at) {
  T value{};
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  at += sizeof(T);
  return value;
}

std::uint64_t take_varint(const std::string& bytes, std::size_t& at) {
  std::uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<unsigned char>(bytes.at(at++));
    value |= std::uint64_t(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
}

Message decode(const std::string& bytes) {
  Message message;
  for (std::size_t at = 0; at < bytes.size();) {
    const std::uint64_t key = take_varint(bytes, at);
    const int field = int(key >> 3);
    if ((key & 7) == 0) message.emplace(field, take_varint(bytes, at));
    if ((key & 7) == 1) message.emplace(field, take<double>(bytes, at));
    if ((key & 7) == 5) message.emplace(field, take<float>(bytes, at));
    if ((key & 7) == 2) {
      const std::uint64_t size = take_varint(bytes, at);
      message.emplace(field, bytes.substr(at, size));
      at += size;
    }
  }
  return message;
}

template <class T>
T get(const Message& message, int field) {
  EXPECT_EQ(message.count(field), 1u) << "field " << field;
  return std::get<T>(message.find(field)->second);
}

// The definition of a CRC: a division of polynomials, bit by bit.
std::uint32_t crc_by_division(const std::string& bytes) {
  std::uint32_t crc = 0xffffffff;
  for (const char byte : bytes)
    for (int bit = 0; bit < 8; ++bit) {
      const bool carry = ((crc ^ (static_cast<unsigned char>(byte) >> bit)) & 1) != 0;
      crc >>= 1;
      if (carry) crc ^= 0x82f63b78;
    }
  return ~crc;
}

std::uint32_t masked(const std::string& bytes) {
  const std::uint32_t crc = crc_by_division(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

std::vector<Message> events(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  std::vector<Message> events;
  for (std::size_t at = 0; at < bytes.size();) {
    const std::string length = bytes.substr(at, 8);
    const auto size = take<std::uint64_t>(bytes, at);
    EXPECT_EQ(take<std::uint32_t>(bytes, at), masked(length));
    const std::string event = bytes.substr(at, size);
    at += size;
    EXPECT_EQ(take<std::uint32_t>(bytes, at), masked(event));
    events.push_back(decode(event));
  }
  return events;
}

std::vector<fs::path> files(const fs::path& dir) {
  std::set<fs::path> sorted;
  for (const auto& entry : fs::directory_iterator(dir)) sorted.insert(entry.path());
  return {sorted.begin(), sorted.end()};
}

TEST(EventFile, Crc32cGivesTheVectorsOfItsStandard) {
  const auto crc = [](const std::string& bytes) { return crc32c(bytes); };
  EXPECT_EQ(crc(""), 0u);
  EXPECT_EQ(crc("123456789"), 0xe3069283u);
  EXPECT_EQ(crc(std::string(32, '\0')), 0x8a9136aau);  // RFC 3720, appendix B.4, as are the next
  EXPECT_EQ(crc(std::string(32, '\xff')), 0x62a8ab43u);
  std::string rising;
  for (char c = 0; c < 32; ++c) rising += c;
  EXPECT_EQ(crc(rising), 0x46dd794eu);
}

TEST(EventFile, HoldsWhatWasWritten) {
  const Dir dir;
  EventSummary summary;
  summary.scalar("train/loss", 2.5);
  summary.bars("router/load/layer_1", std::vector{0.5, 0.25, 0.0});
  EventFile(dir.path, 1).write(300, summary);

  ASSERT_EQ(files(dir.path).size(), 1u);
  EXPECT_TRUE(files(dir.path)[0].filename().string().starts_with("events.out.tfevents."));
  const std::vector<Message> all = events(files(dir.path)[0]);
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(get<std::string>(all[0], 3), "brain.Event:2");
  EXPECT_NEAR(get<double>(all[0], 1), double(time(nullptr)), 60);
  EXPECT_EQ(get<std::uint64_t>(all[1], 2), 1u);
  EXPECT_EQ(get<std::uint64_t>(decode(get<std::string>(all[1], 7)), 1), 1u) << "SessionLog.START";

  EXPECT_EQ(get<std::uint64_t>(all[2], 2), 300u);
  const Message shown = decode(get<std::string>(all[2], 5));
  ASSERT_EQ(shown.count(1), 2u);
  const Message scalar = decode(std::get<std::string>(shown.lower_bound(1)->second));
  EXPECT_EQ(get<std::string>(scalar, 1), "train/loss");
  EXPECT_EQ(get<float>(scalar, 2), 2.5f);

  const Message value = decode(std::get<std::string>(std::next(shown.lower_bound(1))->second));
  EXPECT_EQ(get<std::string>(value, 1), "router/load/layer_1");
  const Message bars = decode(get<std::string>(value, 5));
  EXPECT_EQ(get<double>(bars, 1), 0);
  EXPECT_EQ(get<double>(bars, 2), 3);
  EXPECT_EQ(get<double>(bars, 3), 0.75);
  EXPECT_EQ(get<double>(bars, 4), 0.5 * 0.5 + 0.25 * 1.5);
  EXPECT_EQ(get<double>(bars, 5), 0.5 * 0.25 + 0.25 * 2.25);
  std::size_t at = 0;
  const auto limits = get<std::string>(bars, 6), counts = get<std::string>(bars, 7);
  for (const double limit : {1.0, 2.0, 3.0}) EXPECT_EQ(take<double>(limits, at), limit);
  at = 0;
  for (const double count : {0.5, 0.25, 0.0}) EXPECT_EQ(take<double>(counts, at), count);
}

TEST(EventFile, OfAResumedRunSortsBehindAndNamesItsFirstStep) {
  const Dir dir;
  for (const std::int64_t first : {1, 8, 5}) EventFile(dir.path, first).write(first, EventSummary());
  const std::vector<fs::path> sorted = files(dir.path);
  ASSERT_EQ(sorted.size(), 3u) << "files of one second took each other's name";
  EXPECT_EQ(get<std::uint64_t>(events(sorted[0])[1], 2), 1u);
  EXPECT_EQ(get<std::uint64_t>(events(sorted[1])[1], 2), 8u);
  EXPECT_EQ(get<std::uint64_t>(events(sorted[2])[1], 2), 5u);
}

TEST(EventFile, SaysWhereItCannotWrite) {
  try {
    EventFile("/proc/self", 1);
    FAIL() << "nobody can write there";
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::data);
    EXPECT_NE(std::string(error.what()).find("/proc/self/events.out.tfevents."), std::string::npos) << error.what();
  }
}

TEST(TensorBoard, EndsNoRunWhereItCannotWrite) {
  testing::internal::CaptureStderr();
  const auto self = make_self_group();
  Charts charts("/proc/self", 1, *self);
  charts.write({.step = 1});
  charts.write({.step = 2});
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(said.find("warning: cannot write /proc/self/events.out.tfevents."), 0u) << said;
  EXPECT_EQ(std::ranges::count(said, '\n'), 1) << said;
}

TEST(TensorBoard, ShowsEveryScalarOfAStep) {
  std::map<std::string, float> shown;
  for (const auto& [field, value] : decode(to_summary({.step = 1, .loss = 3, .lr = 0.5, .val_loss = 2}).bytes())) {
    const Message scalar = decode(std::get<std::string>(value));
    shown[get<std::string>(scalar, 1)] = get<float>(scalar, 2);
  }
  EXPECT_EQ(shown.size(), 9u);
  EXPECT_EQ(shown["train/loss"], 3);
  EXPECT_EQ(shown["train/lr"], 0.5);
  EXPECT_EQ(shown["valid/loss"], 2);
}

}  // namespace
}  // namespace switchyard
