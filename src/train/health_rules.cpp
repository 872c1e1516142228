#include "train/health_rules.h"

#include <algorithm>
#include <cmath>

#include "model/placement.h"
#include "moe/health.h"

namespace switchyard {
namespace {

void check_layers(const AlarmConfig& alarm, const std::string& key, const std::vector<bool>& is_moe, Rules& rules) {
  std::string blocks;
  for (std::size_t i = 0; i < is_moe.size(); ++i)
    if (is_moe[i]) blocks += text(blocks.empty() ? "" : ", ", i);
  for (std::size_t i = 0; i < alarm.layers.size(); ++i) {
    const std::int64_t layer = alarm.layers[i];
    const bool has_router = 0 <= layer && layer < std::ssize(is_moe) && is_moe[static_cast<std::size_t>(layer)];
    rules.require(has_router, {text(key, ".layers[", i, "]")}, "block ", layer,
                  " has no router; those that have: ", blocks.empty() ? "none" : blocks);
  }
}

bool is_default(const AlarmConfig& alarm) {
  const std::vector<AlarmConfig> defaults = default_alarms();
  return std::ranges::find(defaults, alarm) != defaults.end();
}

// Whether a router of these scores has this reading from its second one on.
bool is_read(const Reading& reading, Scoring scores) {
  const HealthContext context{.has_before = true, .has_scores = scores != Scoring::hash};
  return !std::isnan(health_of({.experts = 1, .choices = 1}, context).*reading.value);
}

// Experts that choose take as many rows as each other, and what they leave was never chosen.
bool is_constant_where_experts_choose(const std::string& reading) {
  return reading.starts_with("load_") || reading.starts_with("drop") || reading == "dead_experts";
}

}  // namespace

void check_health(const Config& c, Rules& rules) {
  const std::vector<bool> is_moe = moe_blocks(c.moe, c.model.n_layers);
  for (std::size_t i = 0; i < c.health.alarms.size(); ++i) {
    const AlarmConfig& alarm = c.health.alarms[i];
    const Reading& reading = readings()[alarm.watch];
    const std::string key = text("health.alarms[", i, "]");
    rules.require(alarm.above || alarm.below, {key + ".watch"}, "no limit; wanted above or below, or both");
    if (alarm.above && alarm.below)
      rules.require(*alarm.below <= *alarm.above, {key + ".below", key + ".above"}, "nothing lies between ",
                    *alarm.below, " and ", *alarm.above);
    check_layers(alarm, key, is_moe, rules);
    rules.require(c.health.every > 0 || alarm.action == AlarmAction::log, {key + ".action", "health.every"},
                  "health.every = 0 reads nothing that could fire it; read every so many steps, or use log");
    rules.require(is_default(alarm) || is_read(reading, c.moe.router.scores), {key + ".watch", "router.scores"},
                  "hashed tokens have no scores, so there is no ", reading.name);
    if (alarm.action != AlarmAction::raise_balance) continue;
    const RouterConfig& r = c.moe.router;
    rules.require(std::max({r.balance_loss, r.device_loss, r.communication_loss, r.importance_loss, r.load_loss}) > 0,
                  {key + ".action", "router.balance_loss"},
                  "router.balance_loss = 0 stays 0 however often it is multiplied, as do the other losses but z");
    rules.require(reading.value != &RouterHealth::agreement, {key + ".action", key + ".watch"},
                  "agreement is not known at the first reading after a run resumes, which would then train otherwise "
                  "than a run that was never stopped; use log or stop");
  }
}

std::vector<std::string> health_warnings(const Config& c) {
  std::vector<std::string> lines;
  for (std::size_t i = 0; i < c.health.alarms.size() && c.health.every > 0; ++i) {
    const AlarmConfig& alarm = c.health.alarms[i];
    if (is_default(alarm)) continue;
    const std::string key = text("health.alarms[", i, "]"), reading = readings()[alarm.watch].name;
    if (c.moe.router.choice == Choosing::experts && is_constant_where_experts_choose(reading))
      lines.push_back(text(key, ".watch: ", reading,
                           " never changes, for experts that choose take equal numbers of rows and drop none"));
    if (const std::int64_t taken = c.train.steps / c.health.every; taken < alarm.readings)
      lines.push_back(text(key, ".readings: the run's ", c.train.steps, " steps have ", taken,
                           " readings, and it wants ", alarm.readings, " in a row"));
  }
  return lines;
}

}  // namespace switchyard
