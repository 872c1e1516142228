// How long a step waits for a save in the background, beside a copy of the same state to host memory.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <thread>

#include "checkpoint/saver.h"
#include "tensor/kernels.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct Options {
  std::string dir = "save-bench";
  std::int64_t parameters = 100'000'000;
  int saves = 7;
  bool json = false;
};

// Masters and two moments of about so many parameters: blocks of a fused projection, an output projection, eight
// experts and a norm, 512 wide, as the trainer names them.
std::vector<LogicalTensor> state_of(std::int64_t parameters) {
  constexpr std::int64_t d = 512;
  const Shape shapes[] = {{3 * d, d}, {d, d}, {8, 4 * d, d}, {8, d, 2 * d}, {d}};
  std::vector<LogicalTensor> tensors;
  for (std::int64_t made = 0, block = 0; made < parameters; ++block)
    for (int i = 0; i < 5; ++i) {
      made += shapes[i].numel();
      for (const char* kind : {"model", "optimizer.m", "optimizer.v"})
        tensors.push_back({text(kind, '.', block, '.', i), Tensor::zeros(shapes[i], DType::f32, Device{}), shapes[i]});
    }
  return tensors;
}

double median(std::vector<double> values) {
  std::ranges::nth_element(values, values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2));
  return values[values.size() / 2];
}

// What was pruned is deleted in the background; between two saves of a run there is time for that.
bool is_deleting(const fs::path& dir) {
  return std::ranges::any_of(fs::directory_iterator(dir), [](const fs::directory_entry& entry) {
    return entry.path().filename().string().starts_with(".trash-");
  });
}

template <class Work>
double seconds(Work work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

int run(const Options& options) {
  const auto self = make_self_group();
  const std::vector<LogicalTensor> tensors = state_of(options.parameters);
  std::vector<Tensor> copies;
  double bytes = 0;
  for (const LogicalTensor& t : tensors) {
    copies.push_back(zeros_like(t.local));
    bytes += static_cast<double>(t.local.size_in_bytes());
  }
  Saver saver({.dir = options.dir, .keep = 2}, *self);
  saver.reserve(tensors);

  // In turns, so that whatever else the machine does hits both. Nothing is left to write or delete when a save begins;
  // the first two have no checkpoint to delete yet and are not counted.
  std::vector<double> copy, start, finish, blocked;
  for (int i = 0; i < options.saves + 2; ++i) {
    const double c = seconds([&] {
      for (std::size_t t = 0; t < tensors.size(); ++t) kernels(Device{}).copy(copies[t], tensors[t].local);
    });
    TrainingState state;
    state.step = i;
    const double s = seconds([&] { saver.start(tensors, state); });
    while (saver.progress() == SaveProgress::writing) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    const double f = seconds([&] { saver.finish(); });
    while (is_deleting(options.dir)) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    if (i < 2) continue;
    copy.push_back(c);
    start.push_back(s);
    finish.push_back(f);
    blocked.push_back(s + f);
  }
  const double ratio = median(blocked) / median(copy);
  if (options.json)
    std::printf(
        "%s\n",
        Json{{"bytes", bytes}, {"copy_s", copy}, {"start_s", start}, {"finish_s", finish}, {"blocked_over_copy", ratio}}
            .dump(2)
            .c_str());
  else
    std::printf(
        "state    %8.1f MB\ncopy     %8.1f ms\nblocked  %8.1f ms: %.1f to begin, %.1f to publish\n"
        "ratio    %8.2f\n",
        bytes / 1e6, 1e3 * median(copy), 1e3 * median(blocked), 1e3 * median(start), 1e3 * median(finish), ratio);
  return 0;
}

}  // namespace
}  // namespace switchyard

int main(int argc, char** argv) {
  switchyard::Options options;
  CLI::App app("Times saves in the background; --dir is where the checkpoints go, and is removed");
  app.add_option("--dir", options.dir)->capture_default_str();
  app.add_option("--parameters", options.parameters, "f32, with two moments each")->capture_default_str();
  app.add_option("--saves", options.saves)->capture_default_str()->check(CLI::Range(1, 1000));
  app.add_flag("--json", options.json, "for programs");
  CLI11_PARSE(app, argc, argv);
  if (std::filesystem::exists(options.dir)) {
    std::fprintf(stderr, "error: %s exists already\n", options.dir.c_str());
    return 2;
  }
  const int code = switchyard::run(options);
  std::filesystem::remove_all(options.dir);
  return code;
}
