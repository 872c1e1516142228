#include "train/health_config.h"

#include <algorithm>

#include "moe/health.h"

namespace switchyard {
namespace {

std::size_t index_of(const std::string& name) {
  const auto reading = std::ranges::find(readings(), name, &Reading::name);
  SY_CHECK(reading != readings().end(), "no reading is called ", name);
  return static_cast<std::size_t>(reading - readings().begin());
}

}  // namespace

std::vector<std::string> AlarmConfig::reading_names() {
  std::vector<std::string> names;
  for (const Reading& reading : switchyard::readings()) names.emplace_back(reading.name);
  return names;
}

std::vector<AlarmConfig> default_alarms() {
  return {{.watch = index_of("dead_experts"), .above = 0.25},
          {.watch = index_of("load_max"), .above = 8.0},
          {.watch = index_of("evenness"), .below = 0.25},
          {.watch = index_of("drop_fraction"), .above = 0.6},
          {.watch = index_of("largest_logit"), .above = 100.0}};
}

}  // namespace switchyard
