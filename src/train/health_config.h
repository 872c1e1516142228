#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace switchyard {

// What a run does when an alarm fires: says so, also raises the coefficients of all losses but z's, or saves and ends.
enum class AlarmAction { log, raise_balance, stop };

// Fires where a reading of an MoE block has been beyond a limit this many readings in a row, and begins to count anew.
struct AlarmConfig {
  std::size_t watch = 0;  // index among readings()
  std::optional<double> above{}, below{};
  std::int64_t readings = 3;
  std::vector<std::int64_t> layers{};  // empty: every MoE block
  AlarmAction action = AlarmAction::log;

  template <class V>
  void describe(V& v) {
    v.choice("watch", watch, "the reading", reading_names()).required();
    v.field("above", above, "the limit that it must not be above");
    v.field("below", below, "the limit that it must not be below");
    v.field("readings", readings, "readings in a row beyond a limit that fire it").between(1, 1'000'000);
    v.field("layers", layers, "blocks that it watches; empty means every MoE block");
    v.choice("action", action,
             "log says it; raise_balance also multiplies the coefficients of all losses but z by health.raise_by; stop "
             "saves and ends the run with exit code 76",
             {{"log", AlarmAction::log}, {"raise_balance", AlarmAction::raise_balance}, {"stop", AlarmAction::stop}});
  }

  static std::vector<std::string> reading_names();
  bool operator==(const AlarmConfig&) const = default;
};

// Silent in healthy runs; docs/health.md gives the reasons.
std::vector<AlarmConfig> default_alarms();

// How often routers are looked at, and what raises the alarm.
struct HealthConfig {
  std::int64_t every = 50;
  double raise_by = 2, raise_to = 16;
  std::vector<AlarmConfig> alarms = default_alarms();

  template <class V>
  void describe(V& v) {
    v.field("every", every, "steps between readings of every router's health; 0 reads none").between(0, 1'000'000'000);
    v.field("raise_by", raise_by, "what action raise_balance multiplies the coefficients of all losses but z by")
        .between(1, 1000);
    v.field("raise_to", raise_to, "never beyond this many times the configured coefficients").between(1, 1'000'000);
    v.list("alarms", alarms, "readings to watch; a list here replaces this one as a whole");
  }
};

}  // namespace switchyard
