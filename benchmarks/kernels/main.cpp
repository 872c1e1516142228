// Times every row of the kernel table beside what the same device reaches at most, measured in the same run.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "kernels/cases.h"

namespace switchyard::bench {

Recipes kernel_recipes(Scale scale) {
  Recipes recipes;
  for (const auto add : {add_memory, add_products, add_grouped, add_norms, add_attention, add_activations, add_rows,
                         add_router, add_other_routers, add_placement, add_losses, add_optimizer})
    add(recipes, scale);
  std::set<std::string_view> rows;
  for (const Recipe& recipe : recipes) rows.insert(recipe.row);
  constexpr std::size_t kRows = sizeof(Kernels) / sizeof(void*) - 3;  // without allocate, release and packed_size
  SY_CHECK(rows.size() == kRows, rows.size(), " rows of the kernel table are timed, it has ", kRows);
  return recipes;
}

namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

struct Options {
  Scale scale{.device = {}, .tokens = 0};
  std::int64_t product = 0;
  int repetitions = 11;
  double least_ms = 20;
  std::string only, out;
};

// Seconds of one call, over the repetitions.
struct Timing {
  std::int64_t calls;  // of one repetition
  double median, low, high;
};

double seconds_of(const std::function<void()>& run, std::int64_t calls, Device device) {
  synchronize(device);
  const auto begin = Clock::now();
  for (std::int64_t i = 0; i < calls; ++i) run();
  synchronize(device);
  return std::chrono::duration<double>(Clock::now() - begin).count() / static_cast<double>(calls);
}

// Enough calls at a time, one behind the other, that launching and waiting vanish beside them.
Timing time(const std::function<void()>& run, const Options& options) {
  const Device device = options.scale.device;
  seconds_of(run, 1, device);  // what a first call prepares
  const double wanted = options.least_ms / 1e3 / seconds_of(run, 1, device);
  const auto calls = static_cast<std::int64_t>(std::clamp(std::ceil(wanted), 1.0, 1000.0));
  seconds_of(run, calls, device);
  std::vector<double> seconds;
  for (int i = 0; i < options.repetitions; ++i) seconds.push_back(seconds_of(run, calls, device));
  std::ranges::sort(seconds);
  return {calls, seconds[seconds.size() / 2], seconds.front(), seconds.back()};
}

// Bytes or FLOPs a second; 0 until it was measured.
using Ceilings = std::map<Bound, double>;

Json measure(const Recipe& recipe, const Options& options) {
  Json row;
  {
    const Case c = recipe.make();
    const Timing t = time(c.run, options);
    row = {{"row", recipe.row},
           {"variant", recipe.variant},
           {"shape", c.shape},
           {"bound", name_of(c.bound)},
           {"work", c.work},
           {"formula", c.formula},
           {"calls", t.calls},
           {"seconds", t.median},
           {"low", t.low},
           {"high", t.high},
           {"rate", c.work / t.median}};
  }
  release_cache(options.scale.device);
  return row;
}

void print_head() { std::printf("%-24s %-48s %10s %7s %13s %7s\n", "row", "variant", "ms", "spread", "rate", "share"); }
void print_row(const Json& row) {
  const bool latency = row["bound"] == "latency", memory = row["bound"] == "memory";
  const double seconds = row["seconds"], spread = (row["high"].get<double>() - row["low"].get<double>()) / seconds;
  std::printf("%-24s %-48s %10.4g %6.1f%%", row["row"].get<std::string>().c_str(),
              row["variant"].get<std::string>().c_str(), 1e3 * seconds, 100 * spread);
  if (!latency) std::printf(" %8.4g %s", row["rate"].get<double>() / (memory ? 1e9 : 1e12), memory ? "GB/s" : "TF/s");
  if (row.contains("share")) std::printf(" %6.1f%%", 100 * row["share"].get<double>());
  std::printf("\n");
  std::fflush(stdout);
}

int run(Options options) {
  const bool gpu = options.scale.device.type == DeviceType::cuda;
  if (options.scale.tokens == 0) options.scale.tokens = gpu ? 131072 : 8192;
  if (options.product == 0) options.product = options.scale.large() ? (gpu ? 8192 : 2048) : 256;

  Json all{{"device", text(options.scale.device)},
           {"tokens", options.scale.tokens},
           {"repetitions", options.repetitions},
           {"least_ms", options.least_ms}};
  // Before and after the rows; the better of the two counts, so that a share is never flattered by a bad moment.
  Ceilings ceilings;
  Json ceiling_rows = Json::array();
  const auto measure_ceilings = [&](const char* when) {
    for (const Recipe& recipe : ceiling_recipes(options.scale, options.product)) {
      Json row = measure(recipe, options);
      row["when"] = when;
      for (const Bound bound : {Bound::memory, Bound::bf16, Bound::f32})
        if (row["bound"] == name_of(bound)) ceilings[bound] = std::max(ceilings[bound], row["rate"].get<double>());
      print_row(row);
      ceiling_rows.push_back(std::move(row));
    }
  };

  const Recipes recipes = kernel_recipes(options.scale);
  std::printf("Ceilings of %s\n", text(options.scale.device).c_str());
  print_head();
  measure_ceilings("before");
  std::printf("\nRows, shares of the ceilings so far\n");
  print_head();
  Json rows = Json::array();
  const auto set_share = [&](Json& row) {
    for (const auto& [bound, rate] : ceilings)
      if (row["bound"] == name_of(bound)) row["share"] = row["rate"].get<double>() / rate;
  };
  for (const Recipe& recipe : recipes) {
    if (std::string_view(recipe.row).find(options.only) == std::string_view::npos) continue;
    Json row = measure(recipe, options);
    set_share(row);
    print_row(row);
    rows.push_back(std::move(row));
  }
  std::printf("\nCeilings again\n");
  print_head();
  measure_ceilings("after");
  for (Json& row : rows) set_share(row);

  all["ceilings"] = {
      {"memory", ceilings[Bound::memory]}, {"bf16", ceilings[Bound::bf16]}, {"f32", ceilings[Bound::f32]}};
  all["ceiling_rows"] = std::move(ceiling_rows);
  all["rows"] = std::move(rows);
  if (!options.out.empty()) {
    std::ofstream file(options.out);
    file << all.dump(1) << '\n';
    file.flush();
    SY_REQUIRE(file.good(), Fault::usage, "cannot write ", options.out);
  }
  return 0;
}

}  // namespace
}  // namespace switchyard::bench

int main(int argc, char** argv) {
  using namespace switchyard;
  bench::Options options;
  std::string device = "cuda";
  CLI::App app("Times every row of the kernel table beside the device's own copy and largest products.",
               "kernel_bench");
  app.add_option("--device", device, "cuda or cpu")->capture_default_str()->check(CLI::IsMember({"cuda", "cpu"}));
  app.add_option("--tokens", options.scale.tokens, "size of every shape: 131072 leaves a GPU's caches; 0: by device")
      ->check(CLI::Range(64, 1 << 20));
  app.add_option("--product", options.product, "side of the square products; 0: by device")
      ->check(CLI::Range(16, 1 << 16));
  app.add_option("--repetitions", options.repetitions, "of which the median counts")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_option("--least-ms", options.least_ms, "length of a repetition, as many calls as that takes")
      ->capture_default_str();
  app.add_option("--only", options.only, "rows whose name has this in it");
  app.add_option("--out", options.out, "JSON file to write");
  CLI11_PARSE(app, argc, argv);
  options.scale.device = {device == "cuda" ? DeviceType::cuda : DeviceType::cpu, 0};
  try {
    return bench::run(options);
  } catch (const Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return static_cast<int>(error.fault());
  }
}
