#include "app/configuration.h"

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>

#include "train/config_reader.h"

namespace switchyard {

Config load_config(const std::string& path, const std::vector<std::string>& overrides, ProcessGroup& world) {
  // "+" and the text that rank 0 read, or "-" and why it could not, so that every rank gives the same answer.
  std::string message;
  if (world.rank() == 0) {
    std::ifstream file(path, std::ios::binary);
    int failure = file ? 0 : errno;
    std::error_code ignored;
    if (std::filesystem::is_directory(path, ignored)) failure = EISDIR;
    std::stringstream text;
    text << file.rdbuf();
    message = failure == 0 ? "+" + text.str() : "-" + std::generic_category().message(failure);
  }
  message = broadcast_text(world, message, 0);
  SY_REQUIRE(message[0] == '+', Fault::usage, "cannot read the configuration ", path, ": ", message.substr(1));
  return read_config(message.substr(1), path, overrides);
}

}  // namespace switchyard
