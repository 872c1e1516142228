#include "checkpoint/digest.h"

#include <fstream>
#include <set>

#include "checkpoint/disk.h"
#include "checkpoint_case.h"
#include "files/sha256.h"

namespace switchyard::test {
namespace {

namespace fs = std::filesystem;

// The definition, element by element.
std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

Digest defined(const LogicalTensor& t) {
  Digest sum;
  const std::size_t width = size_of(t.local.dtype());
  for (std::int64_t i = 0; i < t.local.numel(); ++i) {
    std::uint64_t bits = 0;
    std::memcpy(&bits, t.local.bytes() + static_cast<std::size_t>(i) * width, width);
    const auto place = static_cast<std::uint64_t>(global_index(t, i));
    const std::uint64_t low = mix(mix((place + 1) * 0x9E3779B97F4A7C15) ^ bits);
    sum += {low, mix(low + 0x9E3779B97F4A7C15)};
  }
  return sum;
}

Digest digest_of(const LogicalTensor& t) {
  return switchyard::digest_of(t.local, {t.origin, t.local.shape()}, t.global_shape);
}

TEST(Digest, IsTheDefinitionForEveryTypeAndCut) {
  std::set<std::string> digests;
  for (const int ep : {1, 2, 4})
    for (int rank = 0; rank < 4; ++rank)
      for (LogicalTensor& t : slices({4, ep}, rank)) {
        fill(t, 1);
        EXPECT_EQ(digest_of(t), defined(t)) << t.name << ' ' << t.local.shape();
        digests.insert(to_hex(digest_of(t)));
      }
  EXPECT_GT(digests.size(), 30u);
  // SplitMix64's first output from state 0, as its authors print it, is an element of value 0 before the last mix
  const LogicalTensor zero{"w", Tensor::zeros({1}, DType::u8, Device{}), {1}};
  EXPECT_EQ(mix(0x9E3779B97F4A7C15), 0xE220A8397B1DCDAFu);
  EXPECT_EQ(digest_of(zero).low, mix(0xE220A8397B1DCDAF));
}

TEST(Digest, SeesAnyMixUp) {
  LogicalTensor t{"w", Tensor::zeros({6, 5}, DType::f32, Device{}), {6, 5}};
  fill(t, 1);
  const Digest good = digest_of(t);
  auto* bits = reinterpret_cast<std::uint32_t*>(t.local.bytes());
  for (int i = 0; i < 30; ++i) {
    bits[i] ^= 1u << i;
    EXPECT_NE(digest_of(t).low, good.low);
    EXPECT_NE(digest_of(t).high, good.high);
    bits[i] ^= 1u << i;
    std::swap(bits[i], bits[(i + 7) % 30]);
    EXPECT_NE(digest_of(t), good);
    std::swap(bits[i], bits[(i + 7) % 30]);
  }
  for (LogicalTensor part{"w", t.local.rows(0, 2), {6, 5}}; ++part.origin[0] < 5;)
    EXPECT_NE(digest_of(part), digest_of(LogicalTensor{"w", t.local.rows(0, 2), {6, 5}}));
  EXPECT_EQ(digest_of(t), good);
}

TEST(Digest, HexGoesBothWays) {
  const Digest digest{0x0123456789ABCDEF, 0xFEDCBA9876543210};
  EXPECT_EQ(to_hex(digest), "fedcba98765432100123456789abcdef");
  EXPECT_EQ(digest_of_hex(to_hex(digest)), digest);
  for (const char* bad : {"", "fedcba98765432100123456789abcde", "Fedcba98765432100123456789abcdef",
                          " edcba98765432100123456789abcdef", "fedcba98765432100123456789abcdef0"})
    EXPECT_FALSE(digest_of_hex(bad)) << bad;
}

TEST(Digest, OfACheckpointIsTheSameOnEveryLayout) {
  const Scratch scratch;
  std::vector<Verified> reports;
  for (const Split split : {Split{1, 1}, {2, 2}, {4, 4}, {4, 2}}) {
    const fs::path run = scratch / text("run", reports.size());
    save(run, 5, split);
    reports.push_back(verify_checkpoint(run));
    EXPECT_EQ(reports.back().problems, std::vector<std::string>());
    EXPECT_TRUE(reports.back().had_digests);
    EXPECT_EQ(switchyard::digest_of(reports.back().tensors), switchyard::digest_of(reports.front().tensors));
    EXPECT_EQ(differences(reports.back(), reports.front()), std::vector<std::string>());
  }
  std::string lines;  // by the definitions alone
  std::map<std::string, LogicalTensor> whole;
  for (LogicalTensor& t : slices({1, 1}, 0)) {
    fill(t, 5);
    whole.emplace(t.name, t);
  }
  for (const auto& [name, t] : whole)
    lines += text(name, ' ', t.local.dtype(), ' ', t.global_shape, ' ', to_hex(defined(t)), '\n');
  EXPECT_EQ(switchyard::digest_of(reports.front().tensors), sha256(lines));

  save(scratch / "later", 6, {1, 1});
  const std::vector<std::string> lines_of_all = differences(verify_checkpoint(scratch / "later"), reports.front());
  EXPECT_EQ(lines_of_all.size(), whole.size());
  EXPECT_EQ(lines_of_all.at(0).rfind("counts.i32: its elements in ", 0), 0u) << lines_of_all.at(0);
}

TEST(Digest, DifferencesOfNamesAndShapes) {
  const StoredTensor w{"w", DType::f32, {2, 3}, {}, {}};
  StoredTensor wide = w, other = w;
  wide.shape = {2, 4};
  other.name = "v";
  const Checkpoint a{"a", {}, {w}, {}};
  EXPECT_EQ(differences(a, {"b", {}, {wide}, {}}), std::vector<std::string>{"w: f32 (2, 3) in a, f32 (2, 4) in b"});
  EXPECT_EQ(differences(a, {"b", {}, {other}, {}}), (std::vector<std::string>{"w: not in b", "v: not in a"}));
}

// A checkpoint whose manifest was changed, with sums to match: only the digests can tell.
class Manifest : public testing::Test {
 protected:
  Manifest() { save(run, 1, {2, 2}); }
  void change(const std::string& from, const std::string& to) {
    std::string manifest = read_text(path / "manifest.json", 1 << 24);
    for (std::size_t place = 0; (place = manifest.find(from, place)) != std::string::npos; place += to.size())
      manifest.replace(place, from.size(), to);
    put(manifest);
  }
  void put(const std::string& manifest) {
    std::string sums = read_text(path / "SHA256SUMS", 1 << 24);
    sums.resize(sums.rfind('\n', sums.size() - 2) + 1);
    std::ofstream(path / "manifest.json", std::ios::binary) << manifest;
    std::ofstream(path / "SHA256SUMS", std::ios::binary) << sums << sha256(manifest) << "  manifest.json\n";
    fs::remove(run / "latest");
  }

  Scratch scratch;
  fs::path run = scratch / "run", path = run / "step-00000001";
};

TEST_F(Manifest, SlicesThatWereMixedUpAreNamed) {
  // two datasets of one shape and type change places: every hash of a file is right
  change("/tensors/model.both_axes", "/tensors/x");
  change("/tensors/optimizer.m.both_axes", "/tensors/model.both_axes");
  change("/tensors/x", "/tensors/optimizer.m.both_axes");
  const Verified report = verify_checkpoint(path);
  ASSERT_EQ(report.problems.size(), 2u);
  EXPECT_EQ(report.problems[0].rfind("model.both_axes: its digest is ", 0), 0u) << report.problems[0];
  EXPECT_EQ(report.problems[1].rfind("optimizer.m.both_axes: its digest is ", 0), 0u) << report.problems[1];
  EXPECT_NE(report.problems[0].find(", the manifest says "), std::string::npos) << report.problems[0];
}

TEST_F(Manifest, OfVersionOneHasNoDigestsAndIsRead) {
  const Verified before = verify_checkpoint(path);
  std::string manifest = read_text(path / "manifest.json", 1 << 24);
  for (std::size_t place; (place = manifest.find("\"digest\":")) != std::string::npos;)
    manifest.erase(place, std::string("\"digest\":\"\",").size() + 32);
  const auto refused = [&] { return refusal([&] { from_manifest(manifest, path); }); };
  EXPECT_EQ(refused(), "manifest.json: counts.i32: no field 'digest'");
  manifest.replace(manifest.find("\"version\": 2"), 12, "\"version\": 1");
  put(manifest);
  const Verified report = verify_checkpoint(path);
  EXPECT_EQ(report.problems, std::vector<std::string>());
  EXPECT_TRUE(before.had_digests);
  EXPECT_FALSE(report.had_digests);
  EXPECT_EQ(switchyard::digest_of(report.tensors), switchyard::digest_of(before.tensors));
  EXPECT_EQ(resume(run), 1);
  change("\"slices\"", "\"digest\":\"0\",\"slices\"");
  EXPECT_NE(verify_checkpoint(path).problems.at(0).find("its digest is not 32 hexadecimal digits"), std::string::npos);
}

}  // namespace
}  // namespace switchyard::test
