#include "app/configuration.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "train/config_reader.h"

namespace switchyard {

Config load_config(const std::string& path, const std::vector<std::string>& overrides, ProcessGroup& world) {
  // The first character tells whether rank 0 could read the file, so that every rank gives the same answer.
  std::string message;
  if (world.rank() == 0) {
    std::ifstream file(path, std::ios::binary);
    std::stringstream text;
    text << file.rdbuf();
    message = file && !std::filesystem::is_directory(path) ? "+" + text.str() : "-";
  }
  message = broadcast_text(world, message, 0);
  SY_REQUIRE(message[0] == '+', Fault::usage, "cannot read the configuration ", path);
  return read_config(message.substr(1), path, overrides);
}

}  // namespace switchyard
