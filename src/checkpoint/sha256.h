#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace switchyard {

// SHA-256 (FIPS 180-4) as 64 lower-case hexadecimal digits, as `sha256sum` prints it.
std::string sha256_of(std::string_view bytes);
// Reads the file in blocks; a file that cannot be read is Error (Fault::checkpoint).
std::string sha256_of_file(const std::filesystem::path& path);

}  // namespace switchyard
