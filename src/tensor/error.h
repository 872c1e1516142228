#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace switchyard {

// What went wrong, as the program's exit code tells it.
enum class Fault {
  internal = 1,       // a contract inside the program was broken
  usage = 2,          // command line or configuration
  data = 3,           // a corpus, tokenizer or token file
  checkpoint = 4,     // a checkpoint is damaged, foreign or missing
  numeric = 5,        // the loss or a gradient is not finite
  memory = 6,         // no memory left on the device
  communication = 7,  // ranks disagree, or one is gone
};

// The one exception this project throws. Its text says what was wanted and what came.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& what, Fault fault = Fault::internal) : std::runtime_error(what), fault_(fault) {}
  Fault fault() const { return fault_; }

 private:
  Fault fault_;
};

template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

[[noreturn]] inline void fail(const char* what, const std::string& why, const char* file, int line) {
  throw Error(text(file, ":", line, ": ", why, " [", what, "]"));
}

}  // namespace switchyard

// A contract between parts of the program; names the place. (No fmt or spdlog here: nvcc cannot compile Debian's
// fmt 9 as C++20, and .cu files include this.)
#define SY_CHECK(condition, ...)                                                           \
  do {                                                                                     \
    if (!(condition)) [[unlikely]]                                                         \
      ::switchyard::fail(#condition, ::switchyard::text(__VA_ARGS__), __FILE__, __LINE__); \
  } while (0)

// A contract with the user; the text alone must tell what to change. `fault` decides the exit code.
#define SY_REQUIRE(condition, fault, ...)                                              \
  do {                                                                                 \
    if (!(condition)) [[unlikely]]                                                     \
      throw ::switchyard::Error(::switchyard::text(__VA_ARGS__), ::switchyard::fault); \
  } while (0)
