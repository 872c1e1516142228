#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <iostream>
#include <memory>

#include "app/commands.h"
#include "app/configuration.h"
#include "app/ranks.h"
#include "data/token_file_writer.h"
#include "data/tokenizer.h"
#include "model/count.h"
#include "tensor/philox.h"
#include "tensor/profile.h"
#include "train/config_rules.h"
#include "train/trainer.h"

namespace switchyard {
namespace {

struct Options {
  std::string config;
  std::vector<std::string> overrides;
  int steps = 10;
  bool worker = false;
};

using Clock = std::chrono::steady_clock;

double seconds(const std::function<void()>& body) {
  const auto begin = Clock::now();
  body();
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// A directory with a token file of random bytes, removed at the end. Rank 0 makes it.
class Scratch {
 public:
  explicit Scratch(ProcessGroup& world) : owner_(world.rank() == 0) {
    dir_ =
        broadcast_text(world, text(std::filesystem::temp_directory_path().string(), "/switchyard-bench-", getpid()), 0);
    if (owner_) {
      std::filesystem::create_directories(dir_);
      std::vector<std::int32_t> tokens;
      for (std::uint64_t i = 0; i < (1 << 20); ++i)
        tokens.push_back(static_cast<std::int32_t>(philox({1, 2}, i)[0] % 256));
      TokenFileWriter writer(dir_ + "/tokens", ByteTokenizer());
      writer.add_document(tokens);
      writer.finish();
    }
    world.barrier();
  }
  ~Scratch() {
    std::error_code ignored;
    if (owner_) std::filesystem::remove_all(dir_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  const std::string& dir() const { return dir_; }

 private:
  bool owner_;
  std::string dir_;
};

// The best of several products of bf16 rows with a weight, FLOP/s: what this process can reach at most.
double matmul_rate(Device device) {
  constexpr std::int64_t n = 2048;
  const Kernels& k = kernels(device);
  Tensor master = Tensor::empty({n, n}, DType::f32, Device{});
  for (std::int64_t i = 0; i < n * n; ++i)
    master.data<float>()[i] = static_cast<float>(uniform(philox({3, 0}, static_cast<std::uint64_t>(i))[0]) - 0.5);
  master = to_device(master, device);
  const Weight w = make_weight(master, DType::bf16);
  const Tensor x = cast(master, DType::bf16);
  Tensor y = empty_like(x);
  double best = 1e9;
  for (int i = 0; i < 10; ++i) best = std::min(best, seconds([&] { k.weight_matmul(y, x, w, Trans::yes); }));
  return 2.0 * n * n * n / best;
}

void print_report(const Config& config, const Options& options, double step_seconds, double fastest, double rate,
                  const std::vector<KernelTime>& times, const MemoryUse& memory) {
  const ModelCount count = count_model(config.model, config.moe, config.train.seq_len);
  const double tokens = static_cast<double>(config.train.global_batch * config.train.seq_len);
  const double achieved = tokens * count.flops_per_token / step_seconds;
  fmt::print("step                {:10.1f} ms  median of {}, fastest {:.1f}\n", 1e3 * step_seconds, options.steps,
             1e3 * fastest);
  fmt::print("tokens/s            {:10.0f}\n", tokens / step_seconds);
  fmt::print("model FLOP/s        {:10.3f} T  ({:.3g} a token)\n", achieved / 1e12, count.flops_per_token);
  fmt::print("bf16 matmul FLOP/s  {:10.3f} T  2048 x 2048 x 2048 in this process, best of 10\n", rate / 1e12);
  fmt::print("share of that       {:10.1f} %\n\n", 100 * achieved / rate);

  double all = 0;
  for (const KernelTime& row : times) all += row.seconds;
  fmt::print("{:<24} {:>7} {:>10} {:>7} {:>10}\n", "kernel, one rank, a step", "calls", "ms", "share", "TFLOP/s");
  for (const KernelTime& row : times)
    fmt::print("{:<24} {:>7.0f} {:>10.2f} {:>6.1f}% {:>10}\n", row.name, static_cast<double>(row.calls) / options.steps,
               1e3 * row.seconds / options.steps, 100 * row.seconds / all,
               row.flops > 0 ? fmt::format("{:.3f}", row.flops / row.seconds / 1e12) : "");
  fmt::print("{:<24} {:>7} {:>10.2f}\n\n", "kernels, together", "", 1e3 * all / options.steps);

  fmt::print("{:<24} {:>14} {:>14}\n", "memory, one rank", "now, MiB", "peak, MiB");
  const auto mib = [](std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); };
  for (std::size_t i = 0; i < kMemoryKinds; ++i)
    fmt::print("{:<24} {:>14.1f} {:>14.1f}\n", name_of(static_cast<Memory>(i)), mib(memory.now[i]),
               mib(memory.peak[i]));
  fmt::print("{:<24} {:>14.1f} {:>14.1f}  ({:.1f} held)\n", "together", mib(memory.total_now), mib(memory.total_peak),
             mib(memory.reserved));
}

int bench(const Options& options, ProcessGroup& world) {
  Config config = load_config(options.config, options.overrides, world);
  check_layout(config, world.size());
  config = resolved(config, world.size());
  const Scratch scratch(world);
  config.data = {.train = {{.path = scratch.dir() + "/tokens"}}, .valid = {}};
  config.run.dir = scratch.dir();
  Trainer trainer(config, world, ProgressStyle::none);

  if (options.worker) {  // a step for each line, answered with its seconds: see benchmarks/
    for (std::string line; std::getline(std::cin, line);)
      fmt::print("{:.6f}\n", seconds([&] { trainer.step(); })), std::fflush(stdout);
    return 0;
  }
  for (int i = 0; i < 3; ++i) trainer.step();
  const double rate = matmul_rate({});
  reset_peak({});
  std::vector<double> steps;
  std::vector<KernelTime> times;
  {
    const Profile profile;
    for (int i = 0; i < options.steps; ++i) steps.push_back(seconds([&] { trainer.step(); }));
    times = profile.times();
  }
  std::ranges::sort(steps);
  if (world.rank() == 0)
    print_report(config, options, steps[steps.size() / 2], steps.front(), rate, times, memory_use({}));
  return 0;
}

}  // namespace

void add_bench(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("bench", "time training steps of a configuration on random tokens");
  const auto options = std::make_shared<Options>();
  command->add_option("config", options->config, "YAML file")->required();
  command->add_option("overrides", options->overrides, "section.key=value");
  command->add_option("--steps", options->steps, "timed steps")->capture_default_str()->check(CLI::Range(1, 1 << 20));
  command->add_flag("--worker", options->worker, "one step for each line of input, answered with its seconds");
  command->callback([options, &action] {
    action = [options] { return on_ranks([&](ProcessGroup& world) { return bench(*options, world); }); };
  });
}

}  // namespace switchyard
