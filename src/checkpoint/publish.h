#pragma once

#include <set>

#include "checkpoint/checkpoint.h"

namespace switchyard {

// What rank 0 does for all, in this order, as the only process that changes the directory of checkpoints.

// Makes `temporary` in `dir`, where `bytes` have room and nothing is left of a crash.
void prepare(const std::filesystem::path& dir, const std::filesystem::path& temporary, std::int64_t bytes);

// Once every rank's file is in `temporary`: adds whatever makes it a checkpoint.
void complete(const std::filesystem::path& temporary, Checkpoint& checkpoint);

// Gives it its name, checkpoint.path, and points `latest` at it. A checkpoint of that name stands aside until then: at
// every moment one of the two can be found. Calls `at` with each stage passed.
void publish(const std::filesystem::path& temporary, const Checkpoint& checkpoint, const SaveObserver& at);

// Discards all that are older than the newest `keep` good ones up to this step.
void prune(const std::filesystem::path& dir, std::int64_t step, int keep, const std::set<std::string>& damaged);

}  // namespace switchyard
