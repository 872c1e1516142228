#include "train/alarms.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "tensor/error.h"
#include "train/fields.h"

namespace switchyard {
namespace {

std::string limit_of(const AlarmConfig& alarm) {
  std::string limit;
  if (alarm.above) limit = "above " + number_text(*alarm.above);
  if (alarm.below) limit += text(limit.empty() ? "" : " or ", "below ", number_text(*alarm.below));
  return limit;
}

bool watches(const AlarmConfig& alarm, std::int64_t layer) {
  return alarm.layers.empty() || std::ranges::find(alarm.layers, layer) != alarm.layers.end();
}

bool is_beyond(const AlarmConfig& alarm, double value) {
  return (alarm.above && value > *alarm.above) || (alarm.below && value < *alarm.below);
}

}  // namespace

const char* name_of(AlarmAction action) {
  switch (action) {
    case AlarmAction::log: return "log";
    case AlarmAction::raise_balance: return "raise_balance";
    case AlarmAction::stop: return "stop";
  }
  return "";
}

std::string to_text(const Alarm& alarm) {
  std::string line = text("block ", alarm.layer, ": ", alarm.watch, " = ", alarm.value, ", ", alarm.limit);
  if (alarm.readings > 1) line += text(" in ", alarm.readings, " readings in a row");
  return line;
}

std::vector<Alarm> Alarms::look_at(const std::vector<LayerHealth>& layers) {
  std::vector<Alarm> fired;
  if (layers.empty()) return fired;
  const Streaks before = std::exchange(streaks_, {});
  int number = 0;
  for (const AlarmConfig& alarm : config_.alarms) {
    ++number;
    const Reading& reading = readings()[alarm.watch];
    const std::string limit = limit_of(alarm);
    for (const auto& [layer, health] : layers) {
      const double value = health.*reading.value;
      const bool exists = !std::isnan(value);
      if (!watches(alarm, layer) || (exists && !is_beyond(alarm, value))) continue;
      const std::string key = text("alarm ", number, ", ", reading.name, " ", limit, ", block ", layer);
      const auto found = before.find(key);
      const std::int64_t streak = (found == before.end() ? 0 : found->second) + (exists ? 1 : 0);
      if (exists && streak >= alarm.readings)
        fired.push_back({layer, reading.name, value, limit, alarm.readings, alarm.action});
      else if (streak > 0)
        streaks_[key] = streak;
    }
  }
  return fired;
}

}  // namespace switchyard
