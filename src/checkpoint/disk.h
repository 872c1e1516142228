#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "tensor/error.h"

namespace switchyard {

// What POSIX promises about files after a crash, and no more: a file's bytes are safe once it is fsynced, its name once
// its directory is. Every failure is Error (Fault::checkpoint) with the path and the system's reason.

// A small file as text; a longer one than `limit` bytes is refused.
std::string read_text(const std::filesystem::path& path, std::size_t limit);
// Written beside it and renamed over it: a reader, or a crash, sees the old text or the new one. The name is safe only
// when the directory is synced.
void write_text(const std::filesystem::path& path, const std::string& text);

// Waits until a file's bytes, or a directory's names, are on the disk.
void sync_path(const std::filesystem::path& path);
void rename_path(const std::filesystem::path& from, const std::filesystem::path& to);
std::int64_t size_of_file(const std::filesystem::path& path);

// Refuses a directory whose file system has less than `bytes` left for this user.
void require_space(const std::filesystem::path& directory, std::int64_t bytes);

}  // namespace switchyard
