#pragma once

#include <atomic>
#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"

namespace switchyard {

// Refuses what no checkpoint can hold.
void check(const LogicalTensor& tensor);

// What is on the disk under this name, as the manifest lists it. The bytes are read back, so that the hash is of what a
// later reader gets.
StoredFile stored_file(const std::filesystem::path& dir, const std::string& name);

// Writes this rank's slices to its file in `dir`, one dataset a slice, and waits until they are on the disk. Returns
// the file as text for the manifest (manifest.h), with every tensor that the rank holds, so that one which nobody
// writes is noticed. Does not communicate; gives up with an Error between two slices once it is told to.
std::string write_rank_file(const std::filesystem::path& dir, int rank, const std::vector<LogicalTensor>& tensors,
                            const std::atomic<bool>& give_up);

}  // namespace switchyard
