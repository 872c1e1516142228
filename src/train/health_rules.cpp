#include "train/health_rules.h"

#include <algorithm>

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

}  // namespace

void check_health(const Config& c, Rules& rules) {
  const std::vector<bool> is_moe = moe_blocks(c.moe, c.model.n_layers);
  for (std::size_t i = 0; i < c.health.alarms.size(); ++i) {
    const AlarmConfig& alarm = c.health.alarms[i];
    const std::string key = text("health.alarms[", i, "]");
    rules.require(alarm.above || alarm.below, {key + ".watch"}, "no limit; wanted above or below, or both");
    if (alarm.above && alarm.below)
      rules.require(*alarm.below <= *alarm.above, {key + ".below", key + ".above"}, "nothing lies between ",
                    *alarm.below, " and ", *alarm.above);
    check_layers(alarm, key, is_moe, rules);
    if (alarm.action != AlarmAction::raise_balance) continue;
    const RouterConfig& r = c.moe.router;
    rules.require(std::max({r.balance_loss, r.device_loss, r.communication_loss, r.importance_loss, r.load_loss}) > 0,
                  {key + ".action", "router.balance_loss"},
                  "router.balance_loss = 0 stays 0 however often it is multiplied");
    rules.require(readings()[alarm.watch].value != &RouterHealth::agreement, {key + ".action", key + ".watch"},
                  "agreement is not known at the first reading after a run resumes, which would then train otherwise "
                  "than a run that was never stopped; use log or stop");
  }
}

}  // namespace switchyard
