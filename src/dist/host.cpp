#include "dist/host.h"

#include <unistd.h>

#include <algorithm>

#include "tensor/cuda/table.h"

namespace switchyard {

std::string host_name() {
  char name[256] = {};
  gethostname(name, sizeof(name) - 1);
  return name;
}

std::optional<Device> gpu_of_rank(ProcessGroup& world) {
  const int gpus = cuda::gpu_count();
  const std::string here = host_name();
  const std::vector<std::string> hosts = all_gather_text(world, here);
  const std::vector<std::string> seen = all_gather_text(world, gpus > 0 ? "yes" : "no");

  const auto without = std::ranges::find(seen, "no");
  if (without == seen.end()) {
    const auto local_rank = std::count(hosts.begin(), hosts.begin() + world.rank(), here);
    return Device{DeviceType::cuda, static_cast<int>(local_rank) % gpus};
  }
  const auto rank = without - seen.begin();
  SY_REQUIRE(std::ranges::count(seen, "no") == world.size(), Fault::usage, "rank ", rank, " on ",
             hosts[static_cast<std::size_t>(rank)],
             " finds no GPU, but other ranks do; with run.device = cpu none is used");
  return {};
}

}  // namespace switchyard
