#include "train/memory_table.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

namespace switchyard {
namespace {

using Bytes = std::array<std::int64_t, kMemoryKinds>;

std::string line(const std::string& title, const Bytes& bytes, std::int64_t together) {
  const auto mib = [](std::int64_t n) { return static_cast<double>(n) / (1 << 20); };
  std::string text = fmt::format("{:<20}", title);
  for (const std::int64_t n : bytes) text += fmt::format("{:>14.1f}", mib(n));
  return text + fmt::format("{:>14.1f}", mib(together));
}

}  // namespace

std::string memory_head() {
  std::string text = fmt::format("{:<20}", "memory, MiB");
  for (int i = 0; i < kMemoryKinds; ++i) text += fmt::format("{:>14}", name_of(static_cast<Memory>(i)));
  return text + fmt::format("{:>14}", "together");
}

std::string memory_line(const MemoryPlan& plan) { return line("a rank, as planned", plan.bytes, plan.together); }

std::string memory_line(const std::string& title, Device device, Moment moment, ProcessGroup& world) {
  const MemoryUse use = memory_use(device);
  Bytes bytes = moment == Moment::now ? use.now : use.peak;
  const std::int64_t together = moment == Moment::now ? use.total_now : use.total_peak;
  Tensor all = Tensor::empty({world.size()}, DType::i64, Device{});
  world.all_gather(all, Tensor::of(std::span<const std::int64_t>(&together, 1), {1}, Device{}));
  const std::int64_t* most = std::max_element(all.data<std::int64_t>(), all.data<std::int64_t>() + world.size());
  const int rank = static_cast<int>(most - all.data<std::int64_t>());
  const std::string name = world.size() > 1 ? fmt::format("rank {}, {}", rank, title) : title;
  return broadcast_text(world, line(name, bytes, together), rank);
}

}  // namespace switchyard
