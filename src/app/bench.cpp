#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "app/commands.h"
#include "app/configuration.h"
#include "app/random_tokens.h"
#include "app/ranks.h"
#include "dist/traffic.h"
#include "model/count.h"
#include "tensor/philox.h"
#include "tensor/profile.h"
#include "train/config_rules.h"
#include "train/learner.h"
#include "train/setup.h"

namespace switchyard {
namespace {

struct Options {
  std::string config;
  std::vector<std::string> overrides;
  int steps = 10;
  bool worker = false, json = false;
};

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

// Until the device has done what the body asks of it.
double seconds(Device device, const std::function<void()>& body) {
  const auto begin = Clock::now();
  body();
  synchronize(device);
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// A square product of bf16 rows with a weight, the best of several: what this process can reach at most. The side is
// large enough to fill the device, the numbers random: hardware is faster on zeros.
struct Product {
  std::int64_t side;
  int repeats = 10;
  double rate = 0;  // FLOP/s
};
Product time_product(Device device) {
  Product product{.side = device.type == DeviceType::cuda ? 8192 : 2048};
  const std::int64_t n = product.side;
  const Kernels& k = kernels(device);
  Tensor master = Tensor::empty({n, n}, DType::f32, Device{});
  for (std::int64_t i = 0; i < n * n; i += 4) {
    const auto bits = philox({3, 0}, static_cast<std::uint64_t>(i));
    for (std::int64_t j = 0; j < 4; ++j)
      master.data<float>()[i + j] = static_cast<float>(uniform(bits[static_cast<std::size_t>(j)]) - 0.5);
  }
  master = to_device(master, device);
  const Weight w = make_weight(master, DType::bf16);
  const Tensor x = cast(master, DType::bf16);
  Tensor y = empty_like(x);
  double best = 1e9;
  for (int i = 0; i < product.repeats; ++i)
    best = std::min(best, seconds(device, [&] { k.weight_matmul(y, x, w, Trans::yes); }));
  product.rate = 2.0 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n) / best;
  return product;
}

struct Report {
  Device device;
  int ranks;
  std::vector<double> steps;          // seconds, shortest first
  std::vector<KernelTime> times;      // over as many steps again, each call waited for
  std::vector<GroupTraffic> traffic;  // of the same steps
  Product product;
  MemoryUse memory;
  ModelCount count;
  double tokens;  // of a step

  double median() const { return steps[steps.size() / 2]; }
  double flops() const { return tokens * count.flops_per_token / median(); }
  double share() const { return flops() / (product.rate * ranks); }
};

void print_json(const Report& r) {
  Json json{{"version", program_version()},
            {"device", text(r.device)},
            {"ranks", r.ranks},
            {"tokens_per_step", r.tokens},
            {"step_seconds", r.steps},
            {"tokens_per_second", r.tokens / r.median()},
            {"parameters", r.count.parameters},
            {"active_parameters", r.count.active},
            {"flops_per_token", r.count.flops_per_token},
            {"model_flops_per_second", r.flops()},
            {"product", {{"side", r.product.side}, {"flops_per_second", r.product.rate}}},
            {"share_of_product", r.share()}};
  const auto steps = static_cast<double>(r.steps.size());
  for (const KernelTime& row : r.times)
    json["kernels"].push_back({{"row", row.name},
                               {"device", row.device == DeviceType::cpu ? "cpu" : "cuda"},
                               {"calls", static_cast<double>(row.calls) / steps},
                               {"seconds", row.seconds / steps},
                               {"flops", row.flops / steps}});
  for (const GroupTraffic& row : r.traffic)
    if (row.size > 1)
      json["traffic"].push_back({{"group", row.group},
                                 {"ranks", row.size},
                                 {"collective", name_of(row.collective)},
                                 {"calls", static_cast<double>(row.traffic.calls) / steps},
                                 {"bytes", static_cast<double>(row.traffic.bytes) / steps}});
  for (std::size_t i = 0; i < kMemoryKinds; ++i)
    json["memory"][name_of(static_cast<Memory>(i))] = {{"now", r.memory.now[i]}, {"peak", r.memory.peak[i]}};
  json["memory"]["together"] = {
      {"now", r.memory.total_now}, {"peak", r.memory.total_peak}, {"held", r.memory.reserved}};
  fmt::print("{}\n", json.dump(1));
}

void print_report(const Report& r) {
  fmt::print("device              {:>10}\n", text(r.device));
  fmt::print("step                {:10.1f} ms  median of {}, fastest {:.1f}\n", 1e3 * r.median(), r.steps.size(),
             1e3 * r.steps.front());
  fmt::print("tokens/s            {:10.0f}\n", r.tokens / r.median());
  fmt::print("model FLOP/s        {:10.3f} T  ({:.3g} a token)\n", r.flops() / 1e12, r.count.flops_per_token);
  fmt::print("bf16 matmul FLOP/s  {:10.3f} T  {} x {} x {} in this process, best of {}{}\n", r.product.rate / 1e12,
             r.product.side, r.product.side, r.product.side, r.product.repeats,
             r.ranks > 1 ? fmt::format(", times {} ranks", r.ranks) : "");
  fmt::print("share of that       {:10.1f} %\n\n", 100 * r.share());

  const auto steps = static_cast<double>(r.steps.size());
  double all = 0;
  for (const KernelTime& row : r.times) all += row.seconds;
  fmt::print("{:<24} {:>7} {:>10} {:>7} {:>10}\n", "kernel, one rank, a step", "calls", "ms", "share", "TFLOP/s");
  for (const KernelTime& row : r.times)
    fmt::print("{:<24} {:>7.0f} {:>10.2f} {:>6.1f}% {:>10}\n",
               row.device == r.device.type ? row.name : fmt::format("{} (cpu)", row.name),
               static_cast<double>(row.calls) / steps, 1e3 * row.seconds / steps, 100 * row.seconds / all,
               row.flops > 0 ? fmt::format("{:.3f}", row.flops / row.seconds / 1e12) : "");
  fmt::print("{:<24} {:>7} {:>10.2f}\n\n", "kernels, together", "", 1e3 * all / steps);

  if (r.ranks > 1) {
    fmt::print("{:<24} {:<16} {:>7} {:>14}\n", "sent, one rank, a step", "group", "calls", "KiB");
    for (const GroupTraffic& row : r.traffic)
      if (row.size > 1)
        fmt::print("{:<24} {:<16} {:>7.0f} {:>14.1f}\n", name_of(row.collective),
                   fmt::format("{} ({})", row.group, row.size), static_cast<double>(row.traffic.calls) / steps,
                   static_cast<double>(row.traffic.bytes) / steps / 1024);
    fmt::print("\n");
  }

  fmt::print("{:<24} {:>14} {:>14}\n", "memory, one rank", "now, MiB", "peak, MiB");
  const auto mib = [](std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); };
  for (std::size_t i = 0; i < kMemoryKinds; ++i)
    fmt::print("{:<24} {:>14.1f} {:>14.1f}\n", name_of(static_cast<Memory>(i)), mib(r.memory.now[i]),
               mib(r.memory.peak[i]));
  fmt::print("{:<24} {:>14.1f} {:>14.1f}  ({:.1f} held)\n", "together", mib(r.memory.total_now),
             mib(r.memory.total_peak), mib(r.memory.reserved));
}

int bench(const Options& options, ProcessGroup& world) {
  Config config = load_config(options.config, options.overrides, world);
  check_layout(config, world.size());
  config = resolved(config, world.size());
  const RandomTokens tokens(world);
  config.data = {.train = {{.path = tokens.prefix()}}, .valid = {}};
  Learner learner(config, world);
  const Device device = learner.device();
  std::int64_t done = 0;
  const auto step = [&] { learner.step(done++ % config.train.steps); };

  if (options.worker) {  // a step for each line, answered with its seconds: see benchmarks/
    for (std::string line; std::getline(std::cin, line);)
      fmt::print("{:.6f}\n", seconds(device, step)), std::fflush(stdout);
    return 0;
  }
  for (int i = 0; i < 3; ++i) step();
  Report report{.device = device,
                .ranks = world.size(),
                .steps = {},
                .times = {},
                .traffic = {},
                .product = {},
                .memory = {},
                .count = count_model(config.model, config.moe, config.train.seq_len),
                .tokens = static_cast<double>(config.train.global_batch * config.train.seq_len)};
  reset_peak(device);
  for (int i = 0; i < options.steps; ++i) report.steps.push_back(seconds(device, step));
  std::ranges::sort(report.steps);
  report.memory = memory_use(device);
  {
    const std::vector<GroupTraffic> before = traffic_of(learner.mesh());
    const Profile profile;
    for (int i = 0; i < options.steps; ++i) step();
    report.times = profile.times();
    report.traffic = traffic_since(before, learner.mesh());
  }
  report.product = time_product(device);
  if (world.rank() == 0) options.json ? print_json(report) : print_report(report);
  return 0;
}

}  // namespace

void add_bench(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("bench", "time training steps of a configuration on random tokens");
  const auto options = std::make_shared<Options>();
  command->add_option("config", options->config, "YAML file")->required();
  command->add_option("overrides", options->overrides, "section.key=value");
  command->add_option("--steps", options->steps, "timed steps; as many again show where the time goes")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  command->add_flag("--json", options->json, "for programs");
  command->add_flag("--worker", options->worker, "one step for each line of input, answered with its seconds");
  command->callback([options, &action] {
    action = [options] { return on_ranks([&](ProcessGroup& world) { return bench(*options, world); }); };
  });
}

}  // namespace switchyard
