#include "data/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "tensor/error.h"

namespace switchyard {

MappedFile::MappedFile(std::string path) : path_(std::move(path)) {
  const int file = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  SY_REQUIRE(file >= 0, Fault::data, path_, ": cannot open: ", std::strerror(errno));
  struct stat status {};
  if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) {
    close(file);
    throw Error(text(path_, ": not a regular file"), Fault::data);
  }
  file_ = file;
  size_ = static_cast<std::size_t>(status.st_size);
  if (size_ == 0) return;
  void* map = mmap(nullptr, size_, PROT_READ, MAP_SHARED, file_, 0);
  if (map == MAP_FAILED) {
    const int why = errno;
    close(file_);
    throw Error(text(path_, ": cannot map ", size_, " bytes: ", std::strerror(why)), Fault::data);
  }
  begin_ = static_cast<const std::byte*>(map);
}

MappedFile::~MappedFile() {
  if (begin_) munmap(const_cast<std::byte*>(begin_), size_);
  if (file_ >= 0) close(file_);
}

std::span<const std::byte> MappedFile::bytes(std::size_t begin, std::size_t count) const {
  SY_CHECK(begin <= size_ && count <= size_ - begin, path_, ": bytes [", begin, ", +", count, ") of ", size_);
  struct stat status {};
  SY_REQUIRE(fstat(file_, &status) == 0, Fault::data, path_, ": ", std::strerror(errno));
  const auto now = static_cast<std::size_t>(status.st_size);
  SY_REQUIRE(now >= size_, Fault::data, path_, ": was cut while in use: had ", size_, " bytes when opened, has ", now);
  return {begin_ + begin, count};
}

}  // namespace switchyard
