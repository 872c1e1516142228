#include "data/eval_loader.h"

#include <algorithm>
#include <iterator>

#include "tensor/error.h"

namespace switchyard {

EvalLoader::EvalLoader(std::span<const DataSource> sources, std::int64_t seq_len, std::int64_t vocab_size,
                       std::int64_t most)
    : seq_len_(seq_len), vocab_size_(vocab_size) {
  SY_CHECK(seq_len >= 1 && vocab_size >= 1 && most >= 0, "seq_len ", seq_len, ", vocab_size ", vocab_size, ", most ",
           most);
  for (const DataSource& source : sources) {
    TokenFile file(source.path);
    check_vocabulary(file, vocab_size);
    const std::int64_t targets = file.tokens() - 1;
    SY_REQUIRE(targets >= 1, Fault::data, source.path, ": has ", file.tokens(), " tokens; evaluation wants 2 or more");
    sources_.push_back({std::move(file), windows_});
    windows_ += (targets + seq_len - 1) / seq_len;
  }
  samples_ = most > 0 ? std::min(most, windows_) : windows_;
}

Batch EvalLoader::batch(std::int64_t first, std::int64_t count) const {
  SY_CHECK(first >= 0 && count >= 0, "samples [", first, ", +", count, ")");
  BatchWriter batch(count, seq_len_);
  std::vector<std::int32_t> window;
  for (std::int64_t sample = first; sample < std::min(first + count, samples_); ++sample) {
    const std::int64_t nth = sample * windows_ / samples_;
    const Source& source = *std::prev(std::ranges::upper_bound(sources_, nth, {}, &Source::first));
    const std::int64_t begin = (nth - source.first) * seq_len_;
    window.resize(static_cast<std::size_t>(std::min(seq_len_ + 1, source.file.tokens() - begin)));
    source.file.read(begin, window);
    check_tokens(window, vocab_size_, source.file);
    batch.add(window);
  }
  return batch.finish();
}

}  // namespace switchyard
