#include "train/alarms.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "train/config_reader.h"
#include "train/config_rules.h"

namespace switchyard {
namespace {

std::size_t reading(const std::string& name) {
  const std::vector<std::string> names = AlarmConfig::reading_names();
  return static_cast<std::size_t>(std::ranges::find(names, name) - names.begin());
}

HealthConfig watching(const AlarmConfig& alarm) { return {.alarms = {alarm}}; }

// Blocks 1 and 3 with these shares of dead experts.
std::vector<LayerHealth> dead(double first, double second) {
  return {{1, {.dead_experts = first}}, {3, {.dead_experts = second}}};
}

TEST(Alarms, FireAfterSoManyReadingsInARowAndCountAnew) {
  Alarms alarms(watching({.watch = reading("dead_experts"), .above = 0.25, .readings = 2}));
  std::vector<std::size_t> fired;
  for (const double share : {0.5, 0.25, 0.5, 0.5, 0.5, 0.5, 0.0})
    fired.push_back(alarms.look_at(dead(0, share)).size());
  EXPECT_EQ(fired, (std::vector<std::size_t>{0, 0, 0, 1, 0, 1, 0}));
}

TEST(Alarms, NameBlockReadingValueAndLimit) {
  Alarms alarms(watching({.watch = reading("dead_experts"), .above = 0.25, .readings = 1}));
  const std::vector<Alarm> fired = alarms.look_at(dead(0.1, 0.75));
  ASSERT_EQ(fired.size(), 1u);
  EXPECT_EQ(to_text(fired[0]), "block 3: dead_experts = 0.75, above 0.25");
}

TEST(Alarms, WatchTheirBlocksAlone) {
  Alarms alarms(watching({.watch = reading("dead_experts"), .above = 0.25, .readings = 1, .layers = {1}}));
  EXPECT_TRUE(alarms.look_at(dead(0, 1)).empty());
  EXPECT_EQ(alarms.look_at(dead(1, 0)).size(), 1u);
}

TEST(Alarms, MayHoldAReadingBetweenTwoLimits) {
  Alarms alarms(watching({.watch = reading("load_max"), .above = 3.0, .below = 1.5, .readings = 1}));
  const auto fires = [&](double load) { return !alarms.look_at({{1, {.load_max = load}}}).empty(); };
  EXPECT_TRUE(fires(1.0));
  EXPECT_FALSE(fires(1.5));
  EXPECT_FALSE(fires(3.0));
  EXPECT_TRUE(fires(3.5));
  EXPECT_EQ(alarms.look_at({{1, {.load_max = 4}}})[0].limit, "above 3.0 or below 1.5");
}

TEST(Alarms, AReadingThatDoesNotExistYetChangesNothing) {
  Alarms alarms(watching({.watch = reading("agreement"), .below = 0.5, .readings = 2}));
  const auto fires = [&](double agreement) { return !alarms.look_at({{1, {.agreement = agreement}}}).empty(); };
  EXPECT_FALSE(fires(NAN));
  EXPECT_FALSE(fires(0.1));
  EXPECT_FALSE(fires(NAN));
  EXPECT_TRUE(fires(0.1));
}

TEST(Alarms, GoOnCountingWhereTheyWereLeft) {
  const HealthConfig config = watching({.watch = reading("dead_experts"), .above = 0.25, .readings = 2});
  Alarms before(config), after(config);
  EXPECT_TRUE(before.look_at(dead(1, 0)).empty());
  EXPECT_EQ(before.streaks().size(), 1u);
  after.resume(before.streaks());
  const std::vector<Alarm> fired = after.look_at(dead(1, 1));
  ASSERT_EQ(fired.size(), 1u);
  EXPECT_EQ(fired[0].layer, 1);
}

TEST(Alarms, AReadingForgetsWhatIsNoLongerConfigured) {
  const HealthConfig old = watching({.watch = reading("dead_experts"), .above = 0.25, .readings = 2});
  Alarms before(old), without(watching({.watch = reading("load_max"), .above = 9.0})), again(old);
  before.look_at(dead(1, 1));
  EXPECT_EQ(before.streaks().size(), 2u);
  without.resume(before.streaks());
  without.look_at(dead(1, 1));
  EXPECT_TRUE(without.streaks().empty());
  again.resume(without.streaks());
  EXPECT_TRUE(again.look_at(dead(1, 1)).empty()) << "this is the first reading in a row";
}

TEST(Alarms, OfEveryKindOfReadingCanFire) {
  for (const Reading& each : readings()) {
    Alarms alarms(watching({.watch = reading(each.name), .above = 1.0, .readings = 1}));
    RouterHealth health;
    EXPECT_TRUE(alarms.look_at({{0, health}}).empty()) << each.name;
    health.*each.value = 2;
    EXPECT_EQ(alarms.look_at({{0, health}}).size(), 1u) << each.name;
  }
}

// What a configuration that says this of health is refused with; nothing where it is taken.
std::string refusal(const std::string& health, const std::string& more = "") {
  try {
    read_config("moe: {experts: 4}\nhealth: " + health + "\n" + more, "run.yaml", {});
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(AlarmConfig, TakesALimitAndRefusesWhatCannotWork) {
  EXPECT_EQ(refusal("{alarms: []}"), "");
  EXPECT_EQ(refusal("{alarms: [{watch: load_cv, above: 1.5, below: null, layers: [1], action: stop}]}"), "");
  EXPECT_EQ(refusal("{alarms: [{watch: agreement, below: 0.5}]}"), "");

  const auto expect = [](const std::string& said, const std::string& part) {
    EXPECT_NE(said.find(part), std::string::npos) << said << "\nwanted: " << part;
  };
  expect(refusal("{alarms: [{watch: dead_expert, above: 0.5}]}"), "did you mean dead_experts?");
  expect(refusal("{alarms: [{watch: load_cv}]}"), "health.alarms[0].watch: no limit; wanted above or below");
  expect(refusal("{alarms: [{above: 1}]}"), "health.alarms[0].watch: is missing");
  expect(refusal("{alarms: [{watch: load_cv, above: 1, below: 2}]}"), "nothing lies between");
  expect(refusal("{alarms: [{watch: load_cv, above: high}]}"), "wanted a number, came high");
  expect(refusal("{alarms: [{watch: load_cv, above: 1, layers: [0, 1]}]}"), "layers[0]: block 0 has no router");
  expect(refusal("{alarms: [{watch: load_cv, above: 1, action: raise}]}"), "did you mean raise_balance?");
  expect(refusal("{alarms: [{watch: load_cv, above: 1, action: raise_balance}]}", "router: {balance_loss: 0}"),
         "router.balance_loss = 0 stays 0");
  expect(refusal("{alarms: [{watch: agreement, below: 0.5, action: raise_balance}]}"), "agreement is not known");
  expect(refusal("{evry: 10}"), "did you mean every?");
  expect(refusal("{every: 0, alarms: [{watch: load_cv, above: 1, action: stop}]}"), "health.every = 0 reads nothing");
  EXPECT_EQ(refusal("{every: 0, alarms: [{watch: load_cv, above: 1}]}"), "");
  EXPECT_EQ(refusal("{every: 0}"), "");
  const std::string hash = "router: {kind: hash}";
  for (const char* name : {"evenness", "entropy_of_mean", "mean_entropy", "largest_logit", "agreement"})
    expect(refusal(text("{alarms: [{watch: ", name, ", below: 0.5}]}"), hash), text("so there is no ", name));
  EXPECT_EQ(refusal("{alarms: [{watch: load_cv, above: 1}]}", hash), "");
  EXPECT_EQ(refusal("{every: 10}", hash), "") << "the alarms that are always there";
}

TEST(AlarmConfig, WarnsOfAlarmsThatWillNotFire) {
  const auto warned = [](const std::string& health, const std::string& more = "") {
    return warnings(
        read_config("moe: {experts: 4}\ntrain: {steps: 1000}\nhealth: " + health + "\n" + more, "run.yaml", {}));
  };
  const std::string chooses = "router: {kind: expert_choice, allow_future_tokens: true}";
  using Lines = std::vector<std::string>;
  for (const char* name : {"load_max", "load_cv", "dead_experts", "drop_fraction", "dropped_gate"})
    EXPECT_EQ(warned(text("{alarms: [{watch: ", name, ", above: 0.5}]}"), chooses),
              Lines{text("health.alarms[0].watch: ", name,
                         " never changes, for experts that choose take equal numbers of rows and drop none")});
  EXPECT_EQ(warned("{alarms: [{watch: evenness, below: 0.5}]}", chooses), Lines{});
  EXPECT_EQ(warned("{alarms: [{watch: load_max, above: 4}]}"), Lines{});
  EXPECT_EQ(warned("{every: 400, alarms: [{watch: load_max, above: 4}, {watch: load_cv, above: 1, readings: 2}]}"),
            Lines{"health.alarms[0].readings: the run's 1000 steps have 2 readings, and it wants 3 in a row"});
  EXPECT_EQ(warned("{every: 400}"), Lines{}) << "the alarms that are always there";
  EXPECT_EQ(warned("{every: 400}", chooses), Lines{});
}

}  // namespace
}  // namespace switchyard
