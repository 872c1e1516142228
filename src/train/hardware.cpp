#include "train/hardware.h"

#include <array>

#include "train/config_reader.h"

namespace switchyard {
namespace {

// The shares of a datasheet that are taken to be reachable.
constexpr double kMatmul = 0.65, kMemory = 0.8, kLink = 0.8;

struct Preset {
  const char* name;
  Hardware hardware;
};

// Datasheets give, of an SXM module: dense bf16 and fp32 TFLOP/s, GB of memory and GB/s to it, GB/s of NVLink one way
// and of the node's network for each device.
struct Datasheet {
  double bf16, fp32, memory, memory_bandwidth, link, network;
};
Hardware of_datasheet(const Datasheet& d) {
  return {.type = DeviceType::cuda,
          .peak = d.bf16,
          .matmul = kMatmul * d.bf16,
          .matmul_fp32 = kMatmul * d.fp32,
          .memory = 0.94 * d.memory * 1e9 / (1 << 30),  // the driver, its libraries and NCCL take the rest
          .memory_bandwidth = kMemory * d.memory_bandwidth,
          .node_devices = 8,
          .node_bandwidth = kLink * d.link,
          .node_latency = 3,
          .network_bandwidth = kLink * d.network,
          .network_latency = 8};
}

const std::array<Preset, 4>& presets() {
  static const std::array<Preset, 4> all{{
      {"h100", of_datasheet({989.4, 66.9, 80, 3350, 450, 50})},
      {"h200", of_datasheet({989.4, 66.9, 141, 4800, 450, 50})},
      {"a100", of_datasheet({312, 19.5, 80, 2039, 300, 25})},
      {"cpu",
       {.type = DeviceType::cpu,
        .peak = 5.6,
        .matmul = 2,
        .matmul_fp32 = 0.25,
        .memory = 8,
        .memory_bandwidth = 25,
        .node_devices = 8,
        .node_bandwidth = 4,
        .node_latency = 10,
        .network_bandwidth = 0.4,
        .network_latency = 50}},
  }};
  return all;
}

}  // namespace

std::string preset_names() {
  std::vector<std::string> names;
  for (const Preset& preset : presets()) names.emplace_back(preset.name);
  return alternatives(names);
}

Hardware preset_hardware(const std::string& name) {
  for (const Preset& preset : presets())
    if (preset.name == name) return preset.hardware;
  throw Error(text(name, ": no such device; wanted ", preset_names(), ", or a YAML file that describes one"),
              Fault::usage);
}

Hardware read_hardware(const std::string& yaml_text, const std::string& file_name) {
  Hardware hardware;
  read_fields(describe(hardware), yaml_text, file_name, {}, [] { return std::vector<Violation>{}; });
  return hardware;
}

}  // namespace switchyard
