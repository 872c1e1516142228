#pragma once

#include <filesystem>
#include <fstream>
#include <map>

#include "data/token_file_writer.h"
#include "tensor/philox.h"
#include "train/config_rules.h"
#include "train/trainer.h"

// A run small enough for a test: a few thousand tokens of a simple language, a model of two blocks.
namespace switchyard::test {

// Every published router, small enough for four experts.
inline std::vector<RouterConfig> small_routers() {
  std::vector<RouterConfig> routers;
  for (int kind = 0; kind <= int(RouterKind::hash); ++kind) {
    RouterConfig router = router_preset(RouterKind(kind));
    if (router.jitter > 0) router.jitter = 0.3;
    if (router.top_k > 2) router.top_k = 2;
    if (router.expert_groups > 1) router.expert_groups = 2, router.groups_met = 1;
    if (router.choice == Choosing::experts) router.expert_cap = 3;
    if (router.kind == RouterKind::deepseek_v2) router.device_capacity = 0.7, router.spared_groups = 0.3;
    router.allow_future_tokens = true;
    routers.push_back(router);
  }
  return routers;
}

// A directory for one test, the same on every rank; rank 0 makes it and takes it away.
class RunDir {
 public:
  RunDir(const std::string& name, ProcessGroup& world)
      : world_(world),
        path_(std::filesystem::temp_directory_path() /
              text("switchyard-", name, "-", broadcast_text(world, text(getpid()), 0))) {
    if (world.rank() == 0) {
      std::filesystem::remove_all(path_);
      std::filesystem::create_directories(path_);
      std::vector<std::int32_t> tokens;
      for (std::uint64_t i = 0; i < 4000; ++i)
        tokens.push_back(i % 3 == 0 ? std::int32_t(philox({1, 0}, i)[0] % 8) : (tokens.back() * 5 + 3) % 32);
      TokenFileWriter writer((path_ / "tokens").string(), ByteTokenizer());
      writer.add_document(tokens);
      writer.finish();
    }
    world.barrier();
  }
  ~RunDir() {
    if (world_.rank() == 0) std::filesystem::remove_all(path_);
  }
  RunDir(const RunDir&) = delete;
  RunDir& operator=(const RunDir&) = delete;

  const std::filesystem::path& path() const { return path_; }

  Config config(int ranks, int expert_ranks, Precision precision = Precision::fp32) const {
    Config c;
    c.run = {.dir = (path_ / "run").string(), .seed = 3, .precision = precision, .threads = 1};
    c.model = {.vocab_size = 258, .d_model = 16, .n_layers = 2, .n_heads = 4, .n_kv_heads = 2, .d_ff = 24};
    c.moe = {.experts = 4, .router = {.top_k = 2, .capacity_factor = 1.0}};
    c.data.train = {{.path = (path_ / "tokens").string()}};
    c.train = {.steps = 20, .seq_len = 8, .global_batch = 8};
    c.optim.schedule.warmup_steps = 5;
    c.parallel = {.data = ranks, .expert = expert_ranks};
    return resolved(c, ranks);
  }

 private:
  ProcessGroup& world_;
  std::filesystem::path path_;
};

// The bytes of every file below a directory.
inline std::map<std::string, std::string> contents(const std::filesystem::path& dir) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(dir))
    if (entry.is_regular_file()) {
      std::ifstream in(entry.path(), std::ios::binary);
      files[std::filesystem::relative(entry.path(), dir).string()] = {std::istreambuf_iterator<char>(in), {}};
    }
  return files;
}

}  // namespace switchyard::test
