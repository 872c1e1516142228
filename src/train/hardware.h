#pragma once

#include <string>

#include "tensor/device.h"

namespace switchyard {

// A device and the network between devices, as a plan sees them: what can be reached, not what a datasheet promises,
// but for `peak`. Devices of a node come one after the other in rank order.
struct Hardware {
  DeviceType type = DeviceType::cuda;
  double peak = 0, matmul = 0, matmul_fp32 = 0;  // TFLOP/s
  double memory = 0, memory_bandwidth = 0;       // GiB, GB/s
  std::int64_t node_devices = 1;
  double node_bandwidth = 0, node_latency = 0;        // GB/s, microseconds
  double network_bandwidth = 0, network_latency = 0;  // likewise

  template <class V>
  void describe(V& v) {
    v.choice("type", type, "what it is; a cuda device computes and sends at once, and pads what goes to experts",
             {{"cpu", DeviceType::cpu}, {"cuda", DeviceType::cuda}})
        .required();
    v.field("peak", peak, "TFLOP/s that utilisation is measured against").between(1e-6, 1e6).required();
    v.field("matmul", matmul, "TFLOP/s of large products in bf16").between(1e-6, 1e6).required();
    v.field("matmul_fp32", matmul_fp32, "TFLOP/s of large products in fp32").between(1e-6, 1e6).required();
    v.field("memory", memory, "GiB that a rank may use").between(1e-3, 1e6).required();
    v.field("memory_bandwidth", memory_bandwidth, "GB/s that a pass over memory reaches").between(1e-3, 1e6).required();
    v.field("node_devices", node_devices, "devices (ranks) of a node").between(1, 1 << 20).required();
    v.field("node_bandwidth", node_bandwidth, "GB/s that a device sends to others of its node")
        .between(1e-3, 1e6)
        .required();
    v.field("node_latency", node_latency, "microseconds of a message inside a node").between(0, 1e6).required();
    v.field("network_bandwidth", network_bandwidth, "GB/s that a device sends to other nodes, while all do")
        .between(1e-3, 1e6)
        .required();
    v.field("network_latency", network_latency, "microseconds of a message between nodes").between(0, 1e6).required();
  }
};

// "h100", "h200", "a100", "cpu": docs/planning.md says where the numbers come from. Error (Fault::usage) for others.
Hardware preset_hardware(const std::string& name);
// A YAML file with all of the keys above; errors as read_config gives them.
Hardware read_hardware(const std::string& yaml_text, const std::string& file_name);
// "h100, h200, a100 or cpu"
std::string preset_names();

}  // namespace switchyard
