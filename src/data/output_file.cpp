#include "data/output_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "tensor/error.h"

namespace switchyard {
namespace {

constexpr std::size_t kBuffer = 1 << 20;

std::filesystem::path directory_of(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  return parent.empty() ? "." : parent;
}

}  // namespace

OutputFile::OutputFile(std::string path) : path_(std::move(path)), temporary_(path_ + ".tmp") {
  std::error_code failure;
  std::filesystem::create_directories(directory_of(path_), failure);
  SY_REQUIRE(!failure, Fault::data, directory_of(path_).string(), ": cannot make this directory: ", failure.message());

  file_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  SY_REQUIRE(file_ >= 0, Fault::data, temporary_, ": cannot write: ", std::strerror(errno));
  // Some network file systems know no locks; there, two writers of one name are not told apart.
  const bool taken = flock(file_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  if (taken || ftruncate(file_, 0) != 0) {
    const int why = errno;
    ::close(file_);
    throw Error(
        text(temporary_, taken ? ": another process is writing this file: " : ": cannot empty: ", std::strerror(why)),
        Fault::data);
  }
  buffer_.reserve(kBuffer);
}

OutputFile::~OutputFile() {
  if (!published_) unlink(temporary_.c_str());
  if (file_ >= 0) ::close(file_);
}

void OutputFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const std::size_t n = std::min(bytes.size(), kBuffer - buffer_.size());
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n));
    bytes = bytes.subspan(n);
    if (buffer_.size() == kBuffer) flush();
  }
}

void OutputFile::flush() {
  hash_.update(buffer_);
  for (std::span<const std::byte> rest(buffer_); !rest.empty();) {
    const ssize_t n = ::write(file_, rest.data(), rest.size());
    SY_REQUIRE(n >= 0 || errno == EINTR, Fault::data, temporary_, ": cannot write: ", std::strerror(errno));
    if (n > 0) rest = rest.subspan(static_cast<std::size_t>(n));
  }
  buffer_.clear();
}

std::string OutputFile::finish() {
  flush();
  SY_REQUIRE(fsync(file_) == 0, Fault::data, temporary_, ": cannot write to the disk: ", std::strerror(errno));
  return hash_.hex();
}

void OutputFile::publish() {
  SY_REQUIRE(std::rename(temporary_.c_str(), path_.c_str()) == 0, Fault::data, path_,
             ": cannot rename to this: ", std::strerror(errno));
  published_ = true;
}

void write_file(const std::string& path, std::string_view text) {
  OutputFile file(path);
  file.write(std::as_bytes(std::span(text)));
  file.finish();
  file.publish();
}

void sync_directory_of(const std::string& path) {
  const std::string directory = directory_of(path).string();
  const int file = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  SY_REQUIRE(file >= 0, Fault::data, directory, ": cannot open: ", std::strerror(errno));
  const bool synced = fsync(file) == 0;
  const int why = errno;
  ::close(file);
  SY_REQUIRE(synced, Fault::data, directory, ": cannot write to the disk: ", std::strerror(why));
}

}  // namespace switchyard
