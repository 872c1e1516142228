#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/batch.h"
#include "data/blend.h"
#include "data/config.h"
#include "data/token_file.h"

namespace switchyard {

struct LoaderOptions {
  std::int64_t seq_len = 0;
  std::int64_t global_batch = 0;  // samples a step, over all ranks
  std::int64_t vocab_size = 0;    // the model's; no token may be outside
  std::uint64_t seed = 0;
};

// The samples of a run: which tokens are at position p of step s is a pure function of the files, the options and
// s * global_batch + p, so that any number of ranks reads the same global batch and a resumed run reads what it would
// have read.
//
// A source is its documents in one stream, each with the end-of-text token that tokenize put behind it; a sample is a
// window of seq_len + 1 tokens, and windows begin seq_len apart, so that a pass over a source (an epoch) predicts
// every token once, but for less than seq_len left over. Each epoch has a pseudo-random order of its own. From the
// second on, windows also begin at a random place of the stream taken as a ring, so that the text is cut elsewhere.
// Blend says which source a sample comes from. Safe to use from any number of threads.
class Loader {
 public:
  // Throws Error: Fault::data where a file is broken, too short for one sample or of a larger vocabulary, Fault::usage
  // where there is no source.
  Loader(std::span<const DataSource> sources, const LoaderOptions& options);

  // Samples [first, first + count) of the global batch of a step; 0 <= first, first + count <= global_batch.
  Batch batch(std::int64_t step, std::int64_t first, std::int64_t count) const;

  // Equal for loaders that give equal batches: of the files' contents, the weights and the options.
  std::string fingerprint() const;

 private:
  struct Source {
    TokenFile file;
    std::int64_t samples = 0;  // of an epoch
  };

  // Window `index` (of the run) of a source: seq_len + 1 tokens.
  void read(std::size_t source, std::int64_t index, std::span<std::int32_t> window) const;

  LoaderOptions options_;
  std::vector<Source> sources_;
  Blend blend_;
};

}  // namespace switchyard
