#pragma once

#include "checkpoint/manifest.h"
#include "dist/process_group.h"

namespace switchyard {

// Refuses a file of other size or hash than the manifest says, before any library parses it.
void require_intact(const std::filesystem::path& path, const StoredFile& file);

// The checkpoint at `path`, after checking its manifest and each of its files, spread over the ranks.
Checkpoint read_intact(const std::filesystem::path& path, ProcessGroup& world);

}  // namespace switchyard
