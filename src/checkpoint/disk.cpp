#include "checkpoint/disk.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

namespace switchyard {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail_on(const char* call, const fs::path& path) {
  throw Error(text(path.string(), ": ", call, ": ", std::strerror(errno)), Fault::checkpoint);
}

// Repeats a call that a signal interrupted.
template <class Call>
auto uninterrupted(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

int open_file(const fs::path& path, int flags) {
  const int file = uninterrupted([&] { return ::open(path.c_str(), flags | O_CLOEXEC, 0666); });
  if (file < 0) fail_on("open", path);
  return file;
}

double megabytes(std::int64_t bytes) { return static_cast<double>(bytes) / 1e6; }

}  // namespace

std::string read_text(const fs::path& path, std::size_t limit) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (!file) fail_on("open", path);
  std::string text;
  char block[65536];
  while (const std::size_t n = std::fread(block, 1, sizeof(block), file.get())) {
    text.append(block, n);
    SY_REQUIRE(text.size() <= limit, Fault::checkpoint, path.string(), ": longer than ", limit, " bytes");
  }
  if (std::ferror(file.get())) fail_on("read", path);
  return text;
}

void write_text(const fs::path& path, const std::string& text) {
  const fs::path beside = path.parent_path() / (".tmp-" + path.filename().string());
  const int file = open_file(beside, O_WRONLY | O_CREAT | O_TRUNC);
  std::size_t done = 0;
  bool good = true;
  while (good && done < text.size()) {
    const ssize_t n = uninterrupted([&] { return ::write(file, text.data() + done, text.size() - done); });
    good = n >= 0;
    if (good) done += static_cast<std::size_t>(n);
  }
  good = good && ::fsync(file) == 0;
  const int reason = errno;
  ::close(file);
  errno = reason;
  if (!good) fail_on("write", beside);
  rename_path(beside, path);
}

void sync_path(const fs::path& path) {
  const int file = open_file(path, O_RDONLY);
  const int result = uninterrupted([&] { return ::fsync(file); });
  const int reason = errno;
  ::close(file);
  errno = reason;
  // Some file systems cannot sync a directory and say so with EINVAL; they order renames themselves.
  if (result != 0 && errno != EINVAL) fail_on("fsync", path);
}

void rename_path(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) fail_on(text("rename to ", to.filename().string()).c_str(), from);
}

std::int64_t size_of_file(const fs::path& path) {
  struct stat status;
  if (::stat(path.c_str(), &status) != 0) fail_on("stat", path);
  return status.st_size;
}

void require_space(const fs::path& directory, std::int64_t bytes) {
  struct statvfs status;
  if (::statvfs(directory.c_str(), &status) != 0) fail_on("statvfs", directory);
  const double free = static_cast<double>(status.f_bavail) * static_cast<double>(status.f_frsize);
  SY_REQUIRE(static_cast<double>(bytes) <= free, Fault::checkpoint, directory.string(),
             ": no space for a checkpoint: it needs ", megabytes(bytes), " MB and ", free / 1e6, " MB are free");
}

}  // namespace switchyard
