#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <utility>

namespace switchyard {

// A file mapped into memory for reading. Every failure is an Error (Fault::data) that names the file.
class MappedFile {
 public:
  explicit MappedFile(std::string path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept
      : path_(std::move(other.path_)),
        file_(std::exchange(other.file_, -1)),
        size_(std::exchange(other.size_, 0)),
        begin_(std::exchange(other.begin_, nullptr)) {}
  MappedFile& operator=(MappedFile&&) = delete;

  const std::string& path() const { return path_; }
  std::size_t size() const { return size_; }

  // The bytes [begin, begin + count). Asks the system for the file's size first: touching a mapped page behind the end
  // of a file that was cut meanwhile would kill the process (SIGBUS), and this says which file it was instead. A cut
  // in the instant between the question and the reading still kills.
  std::span<const std::byte> bytes(std::size_t begin, std::size_t count) const;

 private:
  std::string path_;
  int file_ = -1;
  std::size_t size_ = 0;
  const std::byte* begin_ = nullptr;
};

}  // namespace switchyard
