#pragma once

#include <chrono>
#include <cstdint>

#include "train/metrics.h"

namespace switchyard {

// How a run shows where it stands, on rank 0: one line that is rewritten in place (live), or a line every so often.
enum class ProgressStyle { none, lines, live };

class Progress {
 public:
  Progress(ProgressStyle style, std::int64_t first_step, std::int64_t last_step, std::int64_t log_every);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void show(const StepMetrics& metrics);
  // A line of its own, above the live one.
  void say(const std::string& line);

 private:
  std::string line(const StepMetrics& metrics) const;

  ProgressStyle style_;
  std::int64_t first_step_, last_step_, log_every_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  std::optional<double> val_loss_;
  bool open_ = false;  // the cursor stands behind a live line
};

// "48 s", "3 min 05 s", "2 h 10 min", "4 d 03 h".
std::string duration_text(double seconds);

}  // namespace switchyard
