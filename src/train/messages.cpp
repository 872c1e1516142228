#include "train/messages.h"

#include <cstdio>

namespace switchyard {

void say(const ProcessGroup& world, const std::string& line) {
  if (world.rank() != 0) return;
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

void warn(const ProcessGroup& world, const std::string& line) {
  if (world.rank() == 0) std::fprintf(stderr, "warning: %s\n", line.c_str());
}

void tell_error(const ProcessGroup& world, const std::string& line) {
  if (world.rank() == 0) std::fprintf(stderr, "error: %s\n", line.c_str());
}

}  // namespace switchyard
