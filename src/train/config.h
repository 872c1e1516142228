#pragma once

#include <cstdint>
#include <string>

#include "checkpoint/config.h"
#include "data/config.h"
#include "dist/grid.h"
#include "model/config.h"
#include "moe/config.h"
#include "optim/config.h"
#include "train/health_config.h"

namespace switchyard {

enum class Precision { fp32, bf16 };
enum class DeviceChoice { automatic, cpu, cuda };

struct RunConfig {
  std::string dir = "runs/default";
  std::uint64_t seed = 1;
  Precision precision = Precision::bf16;
  DeviceChoice device = DeviceChoice::automatic;
  std::int64_t threads = 0;

  template <class V>
  void describe(V& v) {
    v.field("dir", dir, "where metrics, checkpoints and the resolved configuration go");
    v.field("seed", seed,
            "of all random numbers: initial weights, sample order, routers' jitter, noise, random choices and hashes, "
            "dropout");
    v.choice("precision", precision, "of activations and products; router, losses and statistics are always fp32",
             {{"fp32", Precision::fp32}, {"bf16", Precision::bf16}});
    v.choice("device", device, "auto takes a GPU a local rank where there is one, else the CPU",
             {{"auto", DeviceChoice::automatic}, {"cpu", DeviceChoice::cpu}, {"cuda", DeviceChoice::cuda}});
    v.field("threads", threads, "CPU threads a rank; 0 shares the machine's cores among its ranks").between(0, 4096);
  }
};

struct TrainConfig {
  std::int64_t steps = 1000;
  std::int64_t seq_len = 256;
  std::int64_t global_batch = 32;
  std::int64_t micro_batch = 0;
  Recompute recompute = Recompute::none;
  std::int64_t log_every = 10;
  bool tensorboard = true;
  std::int64_t eval_every = 250;
  std::int64_t eval_batches = 0;

  template <class V>
  void describe(V& v) {
    v.field("steps", steps, "optimizer steps of the run").between(1, 1'000'000'000);
    v.field("seq_len", seq_len, "tokens of a sample").between(1, 1 << 24);
    v.field("global_batch", global_batch, "samples of a step, over all ranks").between(1, 1 << 24);
    v.field("micro_batch", micro_batch, "samples that a rank computes at once; 0 means its whole share of a step")
        .between(0, 1 << 24);
    v.choice("recompute", recompute,
             "activations to compute again in backward instead of keeping them: of whole blocks, or of their attention "
             "or their ffn (experts included) alone",
             {{"none", Recompute::none},
              {"block", Recompute::block},
              {"attention", Recompute::attention},
              {"ffn", Recompute::ffn}});
    v.field("log_every", log_every, "steps between lines of progress where there is no terminal")
        .between(1, 1'000'000'000);
    v.field("tensorboard", tensorboard, "write event files for TensorBoard beside metrics.jsonl");
    v.field("eval_every", eval_every, "steps between evaluations; 0 evaluates only at the end")
        .between(0, 1'000'000'000);
    v.field("eval_batches", eval_batches,
            "global batches of an evaluation, spread evenly over the validation data; 0 means all of it")
        .between(0, 1'000'000'000);
  }
};

struct DebugConfig {
  bool collectives = false;

  template <class V>
  void describe(V& v) {
    v.field("collectives", collectives,
            "ranks compare name, layer and shape before each collective, and name the one that differs; slow");
  }
};

// Everything a run is made of: one YAML file, one section a member.
struct Config {
  RunConfig run;
  ModelConfig model;
  MoeConfig moe;
  DataConfig data;
  TrainConfig train;
  OptimConfig optim;
  ParallelConfig parallel;
  CheckpointConfig checkpoint;
  HealthConfig health;
  DebugConfig debug;

  template <class V>
  void describe(V& v) {
    v.section("run", run, "where and how the run happens");
    v.section("model", model, "the transformer");
    v.section("moe", moe, "experts, and which blocks have them");
    v.section("router", moe.router, "which experts a token goes to");
    v.section("data", data, "token files");
    v.section("train", train, "batches, steps and evaluation");
    v.section("optim", optim, "the optimizer and its learning rate");
    v.section("parallel", parallel, "how ranks share the work");
    v.section("checkpoint", checkpoint, "saving");
    v.section("health", health, "of routers: readings and alarms");
    v.section("debug", debug, "finding faults");
  }
};

}  // namespace switchyard
