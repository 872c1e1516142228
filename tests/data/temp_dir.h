#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>

#include "data/output_file.h"
#include "tensor/error.h"

namespace switchyard {

// A directory of a test's own, gone with it.
class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "switchyard_test_XXXXXX").string();
    if (!mkdtemp(name.data())) throw Error("cannot make " + name);
    path_ = name;
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::ptrdiff_t files() const {
    return std::distance(std::filesystem::directory_iterator(path_), std::filesystem::directory_iterator());
  }

 private:
  std::filesystem::path path_;
};

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Runs `body`, which must throw Error with this fault and with every one of `parts` in its text.
inline void expect_error(Fault fault, std::initializer_list<std::string> parts, const std::function<void()>& body) {
  try {
    body();
    ADD_FAILURE() << "no error; wanted one with '" << *parts.begin() << "'";
  } catch (const Error& e) {
    EXPECT_EQ(e.fault(), fault) << e.what();
    for (const std::string& part : parts) EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
  }
}

}  // namespace switchyard
