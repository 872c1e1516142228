#include "checkpoint/rank_file.h"

#include <algorithm>
#include <map>

#include "checkpoint/disk.h"
#include "checkpoint/hdf5_file.h"
#include "files/sha256.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

bool is_plain_name(const std::string& name) {
  return !name.empty() && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  });
}

std::string file_name(int rank) {
  const std::string digits = std::to_string(rank);
  return "rank-" + std::string(5 - std::min<std::size_t>(5, digits.size()), '0') + digits + ".h5";
}

}  // namespace

void check(const LogicalTensor& tensor) {
  SY_CHECK(is_plain_name(tensor.name), "a tensor is called '", tensor.name, "'");
  SY_CHECK(tensor.local, tensor.name, ": an empty tensor");
  SY_CHECK(tensor.global_shape.rank() >= 1 && tensor.local.shape().rank() == tensor.global_shape.rank(), tensor.name,
           ": slice ", tensor.local.shape(), " of ", tensor.global_shape);
}

StoredFile stored_file(const fs::path& dir, const std::string& name) {
  return {name, size_of_file(dir / name), sha256_of_file(dir / name, Fault::checkpoint)};
}

std::string write_rank_file(const fs::path& dir, int rank, const std::vector<LogicalTensor>& tensors,
                            const std::atomic<bool>& give_up) {
  SY_REQUIRE(fs::is_directory(dir), Fault::checkpoint, dir.string(),
             ": this rank does not see it; checkpoints need a file system that all ranks share");
  const std::string name = file_name(rank);
  std::map<std::string, StoredTensor> held;
  Hdf5File file = Hdf5File::create(dir / name);
  for (const LogicalTensor& tensor : tensors) {
    SY_REQUIRE(!give_up, Fault::checkpoint, (dir / name).string(), ": given up");
    StoredTensor& stored =
        held.try_emplace(tensor.name,
                         StoredTensor{tensor.name, tensor.local.dtype(), tensor.global_shape, {}, Digest{}})
            .first->second;
    SY_CHECK(stored.dtype == tensor.local.dtype() && stored.shape == tensor.global_shape, tensor.name, " is ",
             stored.dtype, ' ', stored.shape, " in one slice and ", tensor.local.dtype(), ' ', tensor.global_shape,
             " in another");
    if (!tensor.writer || tensor.local.numel() == 0) continue;
    stored.slices.push_back(
        {name, dataset_name(tensor.name, stored.slices.size()), {tensor.origin, tensor.local.shape()}});
    const Tensor host = to_device(tensor.local, Device{});
    *stored.digest += digest_of(host, stored.slices.back().box, tensor.global_shape);
    file.write(stored.slices.back(), host, tensor.global_shape);
  }
  file.close();
  sync_path(dir / name);
  return to_text(stored_file(dir, name), held);
}

}  // namespace switchyard
