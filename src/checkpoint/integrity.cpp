#include "checkpoint/integrity.h"

#include "checkpoint/agreement.h"
#include "checkpoint/disk.h"
#include "files/sha256.h"

namespace switchyard {

void require_intact(const std::filesystem::path& path, const StoredFile& file) {
  const std::int64_t bytes = size_of_file(path / file.name);
  SY_REQUIRE(bytes == file.bytes, Fault::checkpoint, file.name, ": ", bytes, " bytes long, the manifest says ",
             file.bytes);
  const std::string hash = sha256_of_file(path / file.name, Fault::checkpoint);
  SY_REQUIRE(hash == file.sha256, Fault::checkpoint, file.name, ": SHA-256 differs (manifest ",
             file.sha256.substr(0, 12), "…, file ", hash.substr(0, 12), "…)");
}

Checkpoint read_intact(const std::filesystem::path& path, ProcessGroup& world) {
  const std::string manifest = root_or_fail(world, [&] { return read_manifest(path); });
  Checkpoint checkpoint;
  all_or_fail(world, [&] {
    checkpoint = from_manifest(manifest, path);
    for (auto i = static_cast<std::size_t>(world.rank()); i < checkpoint.files.size();
         i += static_cast<std::size_t>(world.size()))
      require_intact(path, checkpoint.files[i]);
  });
  return checkpoint;
}

}  // namespace switchyard
