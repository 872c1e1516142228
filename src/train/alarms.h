#pragma once

#include <map>

#include "train/health.h"
#include "train/health_config.h"

namespace switchyard {

// A reading that was beyond its limit long enough.
struct Alarm {
  std::int64_t layer = 0;
  std::string watch;  // the reading's name
  double value = 0;   // the last
  std::string limit;  // "above 0.25", or both limits: "above 4.0 or below 0.5"
  std::int64_t readings = 0;
  AlarmAction action = AlarmAction::log;
};

// "block 1: dead_experts = 0.5, above 0.25 in 3 readings in a row"
std::string to_text(const Alarm& alarm);
const char* name_of(AlarmAction action);

// Looks at every reading, and remembers how often each alarm's reading was beyond its limit in a row. Knows nothing of
// what an action does. The same on every rank.
class Alarms {
 public:
  explicit Alarms(const HealthConfig& config) : config_(config) {}

  // What fires, in the order of the configuration and then of the blocks. A number that does not exist yet (a NaN)
  // changes nothing, nor does a step without readings.
  std::vector<Alarm> look_at(const std::vector<LayerHealth>& layers);

  // Readings in a row by alarm and block, none of them 0: what a checkpoint holds. The next reading forgets those of
  // alarms that are no longer configured.
  using Streaks = std::map<std::string, std::int64_t>;
  const Streaks& streaks() const { return streaks_; }
  void resume(const Streaks& streaks) { streaks_ = streaks; }

 private:
  HealthConfig config_;
  Streaks streaks_;
};

}  // namespace switchyard
