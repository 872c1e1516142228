#include "train/setup.h"

#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <filesystem>

#include "dist/consistency.h"
#include "dist/host.h"
#include "files/sha256.h"
#include "tensor/cuda/table.h"

namespace switchyard {

Device choose_device(DeviceChoice choice, ProcessGroup& world) {
  if (choice == DeviceChoice::cpu) return {};
  if (choice == DeviceChoice::cuda) kernels({DeviceType::cuda, 0});  // says so where the build has no backend
  const std::optional<Device> gpu = gpu_of_rank(world);
  SY_REQUIRE(gpu || choice == DeviceChoice::automatic, Fault::usage, "run.device = cuda, but ", host_name(),
             " has no CUDA GPU, or no driver for it; use cpu, or auto");
  return gpu.value_or(Device{});
}

std::string describe_device(Device device, DeviceChoice choice, const ProcessGroup& world) {
  std::string words = text(world.size(), world.size() == 1 ? " rank on " : " ranks on ");
  if (device.type == DeviceType::cuda) return words + text("cuda (", cuda::gpu_name(device.index), ")");
  words += "cpu";
  if (choice == DeviceChoice::automatic && std::filesystem::exists("/proc/driver/nvidia/version"))
    words += cuda::is_built()
                 ? ": CUDA finds no GPU here, though the driver is there; it may be older than this build's CUDA"
                 : ": there is a GPU's driver here, but this build has no CUDA backend (README, GPUs)";
  return words;
}

void share_cores(std::int64_t threads, ProcessGroup& world) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  sched_getaffinity(0, sizeof(cores), &cores);
  std::string where = host_name();
  for (int core = 0; core < CPU_SETSIZE; ++core)
    if (CPU_ISSET(core, &cores)) where += text(" ", core);

  const std::vector<std::string> everywhere = all_gather_text(world, where);
  const auto sharing = std::ranges::count(everywhere, where);
  omp_set_num_threads(static_cast<int>(threads > 0 ? threads : std::max<std::int64_t>(1, CPU_COUNT(&cores) / sharing)));
}

void require_same_run(const std::string& configuration, const Parameters& parameters, const Mesh& mesh) {
  require_agreement({{"program", text(program_version(), " ", sha256_of_file("/proc/self/exe", Fault::internal))},
                     {"configuration", configuration}},
                    *mesh.world);
  std::string shapes;
  for (const Parameter& p : parameters) shapes += text(p.name, " ", p.global_shape, "\n");
  require_agreement({{"parameter shapes", shapes}}, *mesh.tokens,
                    mesh.layout.dense.peers(mesh.world->rank(), {Axis::dp, Axis::tp}));
}

DType row_type(Precision precision) { return precision == Precision::fp32 ? DType::f32 : DType::bf16; }

Transformer make_model(const Config& config, Device device, Mesh& mesh) {
  return {config.model,
          config.moe,
          row_type(config.run.precision),
          config.run.seed,
          device,
          mesh,
          cut_into_stages(config.model, config.moe, config.train.seq_len, mesh.stages())};
}

}  // namespace switchyard
