#include "data/loader.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "data/eval_loader.h"
#include "data/temp_dir.h"
#include "data/token_file_writer.h"

namespace switchyard {
namespace {

using Ids = std::vector<std::int32_t>;

class NumberTokenizer final : public Tokenizer {
 public:
  std::string name() const override { return "numbers"; }
  std::string sha256() const override { return "numbers"; }
  std::int64_t vocab_size() const override { return 10'000; }
  std::int32_t eos() const override { return 0; }
  Ids encode(std::string_view) const override { return {}; }
  std::string decode(std::span<const std::int32_t>) const override { return {}; }
};

// A token file whose token i is first + i, in documents of 7.
DataSource numbers(const std::string& prefix, std::int32_t first, std::int32_t count, double weight = 1) {
  TokenFileWriter writer(prefix, NumberTokenizer());
  for (std::int32_t at = 0; at < count; at += 7) {
    Ids document(static_cast<std::size_t>(std::min(7, count - at)));
    std::iota(document.begin(), document.end(), first + at);
    writer.add_document(document);
  }
  writer.finish();
  return {prefix, weight};
}

Ids values(const Tensor& t) { return {t.data<std::int32_t>(), t.data<std::int32_t>() + t.numel()}; }

struct Sample {
  Ids tokens, targets;
  auto operator<=>(const Sample&) const = default;
};

std::vector<Sample> samples(const Batch& batch, std::int64_t seq_len) {
  std::vector<Sample> samples;
  for (std::int64_t at = 0; at < batch.tokens_T.numel(); at += seq_len)
    samples.push_back({values(batch.tokens_T.rows(at, at + seq_len)), values(batch.targets_T.rows(at, at + seq_len))});
  return samples;
}

constexpr LoaderOptions kOptions{.seq_len = 4, .global_batch = 8, .vocab_size = 10'000, .seed = 3};

TEST(Loader, AnyNumberOfRanksReadsTheSameGlobalBatch) {
  const TempDir dir;
  const std::vector<DataSource> sources{numbers(dir / "a", 0, 100, 0.7), numbers(dir / "b", 5000, 60, 0.3)};
  const Loader loader(sources, kOptions);
  for (std::int64_t step = 0; step < 10; ++step) {
    const auto whole = samples(loader.batch(step, 0, 8), 4);
    for (const std::int64_t ranks : {1, 2, 4}) {
      std::vector<Sample> parts;
      for (std::int64_t rank = 0; rank < ranks; ++rank)
        for (const Sample& s : samples(Loader(sources, kOptions).batch(step, rank * 8 / ranks, 8 / ranks), 4))
          parts.push_back(s);
      EXPECT_EQ(parts, whole) << "step " << step << ", " << ranks << " ranks";
    }
  }
  EXPECT_THROW(loader.batch(0, 4, 5), Error);
}

TEST(Loader, BatchesDependOnlyOnThePositionInTheRun) {
  const TempDir dir;
  const std::vector<DataSource> sources{numbers(dir / "a", 0, 200)};
  LoaderOptions wide = kOptions;
  wide.global_batch = 16;
  const auto step_1 = samples(Loader(sources, wide).batch(1, 0, 16), 4);
  const Loader narrow(sources, kOptions);
  auto steps_2_3 = samples(narrow.batch(2, 0, 8), 4);
  for (const Sample& s : samples(narrow.batch(3, 0, 8), 4)) steps_2_3.push_back(s);
  EXPECT_EQ(steps_2_3, step_1);
}

// 101 tokens are 25 windows of 4 and one token to predict the last from: the definition, written out.
TEST(Loader, FirstEpochIsEveryWindowOnceInAnotherOrder) {
  const TempDir dir;
  LoaderOptions options = kOptions;
  options.global_batch = 25;
  const Loader loader(std::vector{numbers(dir / "a", 1000, 101)}, options);
  const Batch batch = loader.batch(0, 0, 25);
  EXPECT_EQ(batch.targets, 100);
  EXPECT_EQ(batch.tokens_T.shape(), (Shape{100}));
  std::vector<Sample> got = samples(batch, 4), wanted;
  for (std::int32_t i = 1000; i < 1100; i += 4)
    wanted.push_back({{i, i + 1, i + 2, i + 3}, {i + 1, i + 2, i + 3, i + 4}});
  EXPECT_NE(got, wanted);
  std::ranges::sort(got);
  EXPECT_EQ(got, wanted);
}

TEST(Loader, LaterEpochsCutTheRingElsewhere) {
  const TempDir dir;
  LoaderOptions options = kOptions;
  options.global_batch = 25;
  const Loader loader(std::vector{numbers(dir / "a", 0, 103)}, options);
  std::set<Ids> orders;
  std::set<std::int32_t> cuts;
  for (std::int64_t epoch = 0; epoch < 8; ++epoch) {
    const auto windows = samples(loader.batch(epoch, 0, 25), 4);
    std::set<std::int32_t> predicted;
    Ids begins;
    for (const auto& [tokens, targets] : windows) {
      begins.push_back(tokens[0]);
      for (std::size_t i = 0; i < 4; ++i) {
        EXPECT_EQ(targets[i], (tokens[i] + 1) % 103);
        predicted.insert(targets[i]);
      }
    }
    EXPECT_EQ(predicted.size(), 100u);  // no token twice
    orders.insert(begins);
    for (const std::int32_t begin : begins) cuts.insert(begin % 4);
    if (epoch == 0) {
      EXPECT_EQ(cuts, (std::set<std::int32_t>{0}));
    }
  }
  EXPECT_EQ(orders.size(), 8u);
  EXPECT_EQ(cuts.size(), 4u);
}

TEST(Loader, SeedsDiffer) {
  const TempDir dir;
  const std::vector<DataSource> sources{numbers(dir / "a", 0, 200)};
  LoaderOptions other = kOptions;
  other.seed = 4;
  const Loader a(sources, kOptions), b(sources, other);
  EXPECT_NE(values(a.batch(0, 0, 8).tokens_T), values(b.batch(0, 0, 8).tokens_T));
  EXPECT_NE(a.fingerprint(), b.fingerprint());
  EXPECT_EQ(a.fingerprint(), Loader(sources, kOptions).fingerprint());
}

TEST(Loader, SourcesComeByWeight) {
  const TempDir dir;
  const Loader loader(std::vector{numbers(dir / "a", 0, 100, 3), numbers(dir / "b", 5000, 100, 1)}, kOptions);
  for (std::int64_t step = 0; step < 20; ++step) {
    int from_b = 0;
    for (const Sample& s : samples(loader.batch(step, 0, 8), 4)) from_b += s.tokens[0] >= 5000;
    EXPECT_EQ(from_b, 2) << step;
  }
}

TEST(Loader, BadDataIsOneClearError) {
  const TempDir dir;
  const auto load = [&](const DataSource& source, std::int64_t vocab_size) {
    LoaderOptions options = kOptions;
    options.vocab_size = vocab_size;
    return Loader(std::vector{source}, options);
  };
  expect_error(Fault::usage, {"data.train"}, [&] { Loader(std::vector<DataSource>{}, kOptions); });
  const DataSource small = numbers(dir / "small", 0, 4);
  expect_error(Fault::data, {"/small", "4 tokens", "seq_len 4", "5"}, [&] { load(small, 10'000); });
  EXPECT_NO_THROW(load(numbers(dir / "enough", 0, 5), 10'000).batch(3, 0, 8));
  const DataSource large = numbers(dir / "large", 0, 101);
  expect_error(Fault::data, {"/large", "10000", "9999"}, [&] { load(large, 9'999); });
  // A pair that does not tell its vocabulary is found out when such a token is read.
  std::filesystem::remove(dir / "large.json");
  const Loader loader = load(large, 99);
  expect_error(Fault::data, {"large.bin", "token 99", "has 99"}, [&] {
    for (std::int64_t step = 0; step < 4; ++step) loader.batch(step, 0, 8);
  });
}

TEST(EvalLoader, EveryTokenIsATargetExactlyOnce) {
  const TempDir dir;
  const std::vector<DataSource> sources{numbers(dir / "a", 0, 10), numbers(dir / "b", 100, 9),
                                        numbers(dir / "c", 200, 2)};
  const EvalLoader loader(sources, 4, 10'000);
  EXPECT_EQ(loader.samples(), 3 + 2 + 1);
  for (const std::int64_t ranks : {1, 2, 3, 4}) {
    const std::int64_t share = (loader.samples() + ranks - 1) / ranks;
    Ids targets;
    std::int64_t count = 0;
    for (std::int64_t rank = 0; rank < ranks; ++rank) {
      const Batch batch = loader.batch(rank * share, share);
      EXPECT_EQ(batch.tokens_T.shape(), (Shape{share * 4}));
      count += batch.targets;
      const Ids tokens = values(batch.tokens_T);
      const Ids all = values(batch.targets_T);
      for (std::size_t i = 0; i < all.size(); ++i) {
        if (all[i] == -1) continue;
        EXPECT_EQ(all[i], tokens[i] + 1);
        targets.push_back(all[i]);
      }
    }
    EXPECT_EQ(targets, (Ids{1, 2, 3, 4, 5, 6, 7, 8, 9, 101, 102, 103, 104, 105, 106, 107, 108, 201})) << ranks;
    EXPECT_EQ(count, 9 + 8 + 1);
  }
}

TEST(EvalLoader, FewWindowsLieEvenlyOverAllSources) {
  const TempDir dir;
  const std::vector<DataSource> sources{numbers(dir / "a", 0, 17), numbers(dir / "b", 100, 9)};
  const EvalLoader loader(sources, 4, 10'000, 3);  // of 4 + 2 windows
  EXPECT_EQ(loader.samples(), 3);
  EXPECT_EQ(values(loader.batch(0, 3).tokens_T), (Ids{0, 1, 2, 3, 8, 9, 10, 11, 100, 101, 102, 103}));
  EXPECT_EQ(EvalLoader(sources, 4, 10'000, 9).samples(), 6);
}

TEST(EvalLoader, PadsTheLastWindow) {
  const TempDir dir;
  const EvalLoader loader(std::vector{numbers(dir / "a", 50, 7)}, 4, 10'000);
  const Batch batch = loader.batch(1, 2);
  EXPECT_EQ(values(batch.tokens_T), (Ids{54, 55, 56, 0, 0, 0, 0, 0}));
  EXPECT_EQ(values(batch.targets_T), (Ids{55, 56, -1, -1, -1, -1, -1, -1}));
  EXPECT_EQ(batch.targets, 2);
}

TEST(EvalLoader, BadDataIsOneClearError) {
  const TempDir dir;
  const auto load = [](const DataSource& source, std::int64_t vocab_size) {
    return EvalLoader(std::vector{source}, 4, vocab_size);
  };
  const DataSource one = numbers(dir / "one", 0, 1), ten = numbers(dir / "ten", 0, 10);
  expect_error(Fault::data, {"/one", "1 tokens"}, [&] { load(one, 10'000); });
  expect_error(Fault::data, {"/ten", "9999"}, [&] { load(ten, 9'999); });
  std::filesystem::remove(dir / "ten.json");
  expect_error(Fault::data, {"ten.bin", "token 9", "has 9"}, [&] { load(ten, 9).batch(0, 3); });
  EXPECT_EQ(EvalLoader({}, 4, 10).samples(), 0);
}

}  // namespace
}  // namespace switchyard
