#include "train/metrics.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>

#include "train/progress.h"

namespace switchyard {
namespace {

std::string read(const std::filesystem::path& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

TEST(MetricsLog, AResumedRunCutsOffWhatIsBeyondItsCheckpoint) {
  const auto path = std::filesystem::temp_directory_path() / text("switchyard-metrics-", getpid(), ".jsonl");
  std::filesystem::remove(path);
  {
    MetricsLog log(path, 0);
    for (const std::int64_t step : {1, 2, 3, 4}) log.write({.step = step, .loss = 0.5});
  }
  std::ofstream(path, std::ios::app) << "{\"step\":5,\"lo";  // the machine went down here
  {
    MetricsLog log(path, 2);
    log.write({.step = 3, .loss = 0.25});
  }
  const std::string all = read(path);
  EXPECT_EQ(std::count(all.begin(), all.end(), '\n'), 3);
  EXPECT_NE(all.find("{\"step\":2,\"tokens\":0,\"loss\":0.5,"), std::string::npos) << all;
  EXPECT_NE(all.find("{\"step\":3,\"tokens\":0,\"loss\":0.25,"), std::string::npos) << all;
  EXPECT_EQ(all.find("\"step\":4"), std::string::npos);
  std::filesystem::remove(path);
}

TEST(Metrics, ValLossStandsOnlyWhereItWasMeasured) {
  EXPECT_EQ(to_json({.step = 1}).find("val_loss"), std::string::npos);
  EXPECT_NE(to_json({.step = 1, .val_loss = 1.5}).find("\"val_loss\":1.5"), std::string::npos);
}

TEST(DurationText, ReadsLikeAPerson) {
  EXPECT_EQ(duration_text(-1), "0 s");
  EXPECT_EQ(duration_text(48.4), "48 s");
  EXPECT_EQ(duration_text(185), "3 min 05 s");
  EXPECT_EQ(duration_text(7800), "2 h 10 min");
  EXPECT_EQ(duration_text(4 * 86400 + 3 * 3600), "4 d 03 h");
}

}  // namespace
}  // namespace switchyard
