#include <fstream>

#include "checkpoint/directory.h"
#include "checkpoint/disk.h"
#include "checkpoint_case.h"

namespace switchyard::test {
namespace {

namespace fs = std::filesystem;

// Two good checkpoints, the newer of which is about to be hurt.
class Damage : public testing::Test {
 protected:
  Damage() {
    save(run, 400, {2, 2});
    save(run, 500, {2, 2});
  }
  void put(const fs::path& file, const std::string& bytes) {
    std::ofstream(file, std::ios::binary | std::ios::trunc) << bytes;
  }
  // The newer one is refused in words, and the older one found, on one rank and on all of two.
  void expect_falls_back(const std::string& damage) {
    SCOPED_TRACE(damage);
    std::vector<std::string> warnings;
    EXPECT_EQ(resume(run, &warnings), 400);
    ASSERT_FALSE(warnings.empty());
    EXPECT_EQ(warnings.back().rfind("step-00000500 refused: ", 0), 0u) << warnings.back();
    EXPECT_FALSE(verify_checkpoint(newer).problems.empty());
    run_ranks(2, [&](ProcessGroup& world) {
      auto tensors = slices({2, 2}, world.rank());
      EXPECT_NE(refusal([&] { load_checkpoint(newer, tensors, world); }), "");
    });
  }

  Scratch scratch;
  fs::path run = scratch / "run", newer = run / "step-00000500";
  const std::vector<std::string> files{"rank-00000.h5", "rank-00001.h5", "checkpoint.h5", "manifest.json",
                                       "SHA256SUMS"};
};

TEST_F(Damage, AnyFlippedBitIsSeen) {
  for (const std::string& file : files) {
    const std::string good = read_text(newer / file, 1 << 24);
    // the first and last bytes, and some of every region between
    for (std::size_t i = 0; i < 24; ++i) {
      const std::size_t offset = i < 4   ? i
                                 : i < 8 ? good.size() - 1 - (i - 4)
                                         : (i - 8) * (good.size() - 1) / 16 + i % 7;
      std::string bad = good;
      bad[offset] = static_cast<char>(bad[offset] ^ (1 << i % 8));
      put(newer / file, bad);
      expect_falls_back(text(file, " at ", offset));
    }
    put(newer / file, good);
  }
  EXPECT_EQ(resume(run), 500);
}

TEST_F(Damage, CutEmptyLongerAndMissingFiles) {
  for (const std::string& file : files) {
    const std::string good = read_text(newer / file, 1 << 24);
    for (const std::string& bad :
         {good.substr(0, good.size() / 2), good.substr(0, good.size() - 1), std::string(), good + "\n"}) {
      put(newer / file, bad);
      expect_falls_back(text(file, " of ", bad.size(), " bytes"));
    }
    fs::remove(newer / file);
    expect_falls_back(file + " missing");
    fs::create_directory(newer / file);
    expect_falls_back(file + " a directory");
    fs::remove(newer / file);
    put(newer / file, good);
  }
  EXPECT_EQ(resume(run), 500);
}

TEST_F(Damage, TheMessageSaysWhat) {
  std::string bytes = read_text(newer / "rank-00001.h5", 1 << 24);
  bytes[2000] ^= 1;
  put(newer / "rank-00001.h5", bytes);
  std::vector<std::string> warnings;
  resume(run, &warnings);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_EQ(warnings[0].rfind("step-00000500 refused: rank-00001.h5: SHA-256 differs (manifest ", 0), 0u)
      << warnings[0];
  const CheckpointReport report = verify_checkpoint(newer);
  ASSERT_EQ(report.problems.size(), 1u);
  EXPECT_EQ(report.problems[0].rfind("rank-00001.h5: SHA-256 differs", 0), 0u) << report.problems[0];
  EXPECT_EQ(inspect_checkpoint(newer).state, state_of(500));
  put(newer / "rank-00001.h5", bytes.substr(0, 1000));
  resume(run, &warnings);
  EXPECT_EQ(warnings.at(0),
            text("step-00000500 refused: rank-00001.h5: 1000 bytes long, the manifest says ", bytes.size()));
  put(newer / "manifest.json", "{}\n");  // refused by its hash, before it is parsed
  resume(run, &warnings);
  EXPECT_EQ(warnings.at(0).rfind("step-00000500 refused: manifest.json: its SHA-256 ", 0), 0u) << warnings[0];
}

TEST_F(Damage, LatestMayBeHurtAnywhere) {
  const std::string good = read_text(run / "latest", 4096);
  for (std::size_t offset = 0; offset < good.size(); ++offset) {
    std::string bad = good;
    bad[offset] = static_cast<char>(bad[offset] ^ (1 << offset % 8));
    put(run / "latest", bad);
    std::vector<std::string> warnings;
    EXPECT_EQ(resume(run, &warnings), 500) << bad;
    EXPECT_EQ(warnings.size(), offset + 1 < good.size() ? 1u : warnings.size()) << bad;
  }
  // one bit from the newer name to the older: the hash in the second line tells
  std::string older = good;
  older[good.find('5')] = '4';
  put(run / "latest", older);
  std::vector<std::string> warnings;
  EXPECT_EQ(resume(run, &warnings), 500);
  EXPECT_NE(warnings.at(0).find("latest: its SHA-256 is not that of step-00000400"), std::string::npos) << warnings[0];
  for (const char* bad : {"", "\n", "step-00000900\n", "../step-00000500\n", "step-00000500\nx\ny\n"}) {
    put(run / "latest", bad);
    EXPECT_EQ(resume(run, &warnings), 500) << bad;
    EXPECT_EQ(warnings.size(), 1u) << bad;
  }
  fs::remove(run / "latest");
  EXPECT_EQ(resume(run, &warnings), 500);
  EXPECT_EQ(warnings.size(), 1u);
}

TEST_F(Damage, NoGoodOneLeftIsAnErrorOnEveryRank) {
  for (const char* step : {"step-00000400", "step-00000500"}) fs::remove(run / step / "rank-00001.h5");
  run_ranks(4, [&](ProcessGroup& world) {
    const std::string why = refusal([&] { find_checkpoint(run, world); });
    for (const char* part : {"no good checkpoint", "step-00000400 refused", "step-00000500 refused"})
      EXPECT_NE(why.find(part), std::string::npos) << why;
  });
  fs::remove_all(run / "step-00000400");
  fs::remove_all(newer);
  EXPECT_NE(refusal([&] { resume(run); }).find("step-00000500, which is not there"), std::string::npos);
}

// Manifests that are whole by their hash and yet not ours.
TEST_F(Damage, ForeignManifests) {
  const std::string good = read_text(newer / "manifest.json", 1 << 24);
  const auto why = [&](const std::string& from, const std::string& to) {
    std::string bad = good;
    const std::size_t place = bad.find(from);
    EXPECT_NE(place, std::string::npos) << from;
    return refusal([&] { from_manifest(bad.replace(place, from.size(), to), newer); });
  };
  EXPECT_EQ(from_manifest(good, newer).state, state_of(500));
  EXPECT_EQ(why("\"version\": 2", "\"version\": 7"),
            "manifest.json: format version 7 is unknown; this program reads versions 1 to 2");
  EXPECT_NE(why("switchyard checkpoint", "other").find("not the manifest"), std::string::npos);
  EXPECT_NE(why("\"step\":500", "\"stop\":500").find("no field 'step'"), std::string::npos);
  EXPECT_NE(why("\"step\":500", "\"step\":\"500\"").find("'step' is not an integer"), std::string::npos);
  EXPECT_NE(why("\"world_size\":1", "\"world_size\":99999999999").find("out of range"), std::string::npos);
  EXPECT_NE(why("\"seed\":18446744073709551615", "\"seed\":-1").find("natural"), std::string::npos);
  EXPECT_NE(why("\"name\":\"rank-00000.h5\"", "\"name\":\"../rank.h5\"").find("not one of a checkpoint"),
            std::string::npos);
  EXPECT_NE(why("\"file\":\"rank-00000.h5\"", "\"file\":\"rank-00009.h5\"").find("not listed"), std::string::npos);
  EXPECT_NE(why("\"dtype\":\"f32\"", "\"dtype\":\"f64\"").find("'f64'"), std::string::npos);
  EXPECT_NE(why("\"shape\":[8,24]", "\"shape\":[8,25]").find("slices hold 192 of its 200"), std::string::npos);
  EXPECT_NE(why("\"shape\":[8,24]", "\"shape\":[281474976710656,2]").find("2^48"), std::string::npos);
  EXPECT_NE(why("\"shape\":[8,24]", "\"shape\":[1,1,1,8,24]").find("5 numbers"), std::string::npos);
  EXPECT_NE(why("\"origin\":[0,0]", "\"origin\":[-1,0]").find("holds -1"), std::string::npos);
  EXPECT_NE(refusal([&] { from_manifest(std::string(100000, '['), newer); }).find("manifest.json: "),
            std::string::npos);
}

TEST_F(Damage, NamesOfSteps) {
  EXPECT_EQ(step_name(500), "step-00000500");
  EXPECT_EQ(step_name(12345678901), "step-12345678901");
  for (std::int64_t step : {std::int64_t{0}, std::int64_t{99999999}, std::int64_t{100000000}, INT64_MAX})
    EXPECT_EQ(step_of(step_name(step)), step);
  for (const char* name : {"step-", "step-500", "step-000000500", "step-0000050x", "step--0000500", "xtep-00000500",
                           "step-99999999999999999999", ".old-step-00000500"})
    EXPECT_FALSE(step_of(name)) << name;
}

TEST_F(Damage, ReportsReadADirectoryOfCheckpointsToo) {
  const CheckpointReport report = verify_checkpoint(run);
  EXPECT_EQ(report.path, newer);
  EXPECT_TRUE(report.problems.empty()) << report.problems[0];
  EXPECT_EQ(report.state, state_of(500));
  EXPECT_EQ(report.tensors.size(), 15u);
  EXPECT_EQ(report.files.size(), 3u);
  EXPECT_EQ(verify_checkpoint(scratch / "absent").problems.size(), 1u);
  EXPECT_NE(refusal([&] { inspect_checkpoint(scratch / "absent"); }).find("No such file"), std::string::npos);
}

}  // namespace
}  // namespace switchyard::test
