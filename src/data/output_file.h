#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "files/sha256.h"

namespace switchyard {

// A file that appears whole or not at all: written as PATH.tmp, hashed on the way, and given its name by publish().
// Every failure (no room, no permission, another writer) is an Error (Fault::data) that names the file.
class OutputFile {
 public:
  explicit OutputFile(std::string path);
  ~OutputFile();  // removes what was not published
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::span<const std::byte> bytes);
  template <class T>
  void write_value(const T& value) {
    write(std::as_bytes(std::span(&value, 1)));
  }
  // Ends the writing: all bytes are on the disk. Returns their SHA-256.
  std::string finish();
  // Renames the finished file to its own name, over any older one.
  void publish();

 private:
  void flush();

  std::string path_, temporary_;
  int file_ = -1;
  bool published_ = false;
  std::vector<std::byte> buffer_;
  Sha256 hash_;
};

// The whole text as such a file.
void write_file(const std::string& path, std::string_view text);

// Makes renames and removals beside `path` last through a power cut.
void sync_directory_of(const std::string& path);

}  // namespace switchyard
