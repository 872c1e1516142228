#include "data/loader.h"

#include <algorithm>

#include "data/permutation.h"
#include "files/sha256.h"
#include "tensor/error.h"
#include "tensor/philox.h"

namespace switchyard {
namespace {

std::vector<double> weights_of(std::span<const DataSource> sources) {
  SY_REQUIRE(!sources.empty(), Fault::usage, "data.train lists no token file to train on");
  std::vector<double> weights;
  for (const DataSource& source : sources) weights.push_back(source.weight);
  return weights;
}

// Where an epoch's first window begins. The first epoch begins at the beginning, so that a run of one pass has the
// windows that any other GPT loader has.
std::int64_t rotation(const LoaderOptions& options, std::size_t source, std::int64_t epoch, std::int64_t tokens) {
  if (epoch == 0) return 0;
  const auto random = philox(philox_key(options.seed, "data rotation"), static_cast<std::uint64_t>(epoch), source);
  const std::uint64_t wide = random[0] | std::uint64_t{random[1]} << 32;
  return static_cast<std::int64_t>(wide % static_cast<std::uint64_t>(tokens));
}

Permutation order(const LoaderOptions& options, std::size_t source, std::int64_t epoch, std::int64_t samples) {
  const auto random = philox(philox_key(options.seed, "data order"), static_cast<std::uint64_t>(epoch), source);
  return {{random[0], random[1]}, samples};
}

}  // namespace

Loader::Loader(std::span<const DataSource> sources, const LoaderOptions& options)
    : options_(options), blend_(weights_of(sources)) {
  SY_CHECK(options.seq_len >= 1 && options.global_batch >= 1 && options.vocab_size >= 1, "seq_len ", options.seq_len,
           ", global_batch ", options.global_batch, ", vocab_size ", options.vocab_size);
  for (const DataSource& source : sources) {
    TokenFile file(source.path);
    check_vocabulary(file, options.vocab_size);
    SY_REQUIRE(file.tokens() > options.seq_len, Fault::data, source.path, ": has ", file.tokens(),
               " tokens; one sample of seq_len ", options.seq_len, " wants ", options.seq_len + 1);
    const std::int64_t samples = (file.tokens() - 1) / options.seq_len;
    sources_.push_back({std::move(file), samples});
  }
}

void Loader::read(std::size_t source, std::int64_t index, std::span<std::int32_t> window) const {
  const auto& [file, samples] = sources_[source];
  const std::int64_t epoch = index / samples;
  const std::int64_t place = order(options_, source, epoch, samples)(index % samples) * options_.seq_len;
  const std::int64_t begin = (rotation(options_, source, epoch, file.tokens()) + place) % file.tokens();
  const auto before_end = static_cast<std::size_t>(std::min(options_.seq_len + 1, file.tokens() - begin));
  file.read(begin, window.first(before_end));
  file.read(0, window.subspan(before_end));
  check_tokens(window, options_.vocab_size, file);
}

Batch Loader::batch(std::int64_t step, std::int64_t first, std::int64_t count) const {
  SY_CHECK(step >= 0 && 0 <= first && 0 <= count && first + count <= options_.global_batch, "samples [", first, ", +",
           count, ") of step ", step, " with ", options_.global_batch, " samples");
  BatchWriter batch(count, options_.seq_len);
  std::vector<std::int32_t> window(static_cast<std::size_t>(options_.seq_len + 1));
  for (std::int64_t i = 0; i < count; ++i) {
    const auto [source, index] = blend_(step * options_.global_batch + first + i);
    read(static_cast<std::size_t>(source), index, window);
    batch.add(window);
  }
  return batch.finish();
}

std::string Loader::fingerprint() const {
  Sha256 hash;
  hash.update(text("seq_len ", options_.seq_len, " global_batch ", options_.global_batch, " seed ", options_.seed));
  for (std::size_t i = 0; i < sources_.size(); ++i)
    hash.update(text(" share ", blend_.shares()[i], " of ", sources_[i].file.fingerprint()));
  return hash.hex();
}

}  // namespace switchyard
