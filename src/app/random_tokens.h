#pragma once

#include <string>

#include "dist/process_group.h"

namespace switchyard {

// A directory with a token file of random bytes, `tokens`, removed at the end. Rank 0 makes it; every rank calls.
class RandomTokens {
 public:
  explicit RandomTokens(ProcessGroup& world);
  ~RandomTokens();
  RandomTokens(const RandomTokens&) = delete;
  RandomTokens& operator=(const RandomTokens&) = delete;

  const std::string& dir() const { return dir_; }
  std::string prefix() const { return dir_ + "/tokens"; }

 private:
  bool owner_;
  std::string dir_;
};

}  // namespace switchyard
