#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/batch.h"
#include "data/config.h"
#include "data/token_file.h"

namespace switchyard {

// The windows of validation sources, one after another in order: each token that has one before it in its source is the
// target of exactly one place, and the last window of a source is filled up with targets of -1. Weights do not matter.
// Where only `most` of them are wanted (0: all), these lie evenly over all sources.
// The list is global: ranks that take their own ranges of it evaluate exactly the same set, however many they are.
// Safe to use from any number of threads.
class EvalLoader {
 public:
  // Throws Error (Fault::data) where a file is broken, has fewer than two tokens or a larger vocabulary.
  EvalLoader(std::span<const DataSource> sources, std::int64_t seq_len, std::int64_t vocab_size, std::int64_t most = 0);

  std::int64_t samples() const { return samples_; }
  // Samples [first, first + count); those beyond samples() are empty, so that ranks may ask for equal counts.
  Batch batch(std::int64_t first, std::int64_t count) const;

 private:
  struct Source {
    TokenFile file;
    std::int64_t first = 0;  // its first window
  };

  std::vector<Source> sources_;
  std::int64_t seq_len_, vocab_size_, windows_ = 0, samples_ = 0;
};

}  // namespace switchyard
