#include "train/config_rules.h"

#include <gtest/gtest.h>

#include <functional>

#include "tensor/error.h"
#include "train/config_reader.h"

namespace switchyard {
namespace {

std::string usage_error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::usage);
    return error.what();
  }
  return "";
}

std::string errors_of(const std::string& yaml) {
  return usage_error_of([&] { read_config(yaml, "a.yaml"); });
}

TEST(ConfigRules, KeysMustFitEachOther) {
  const struct {
    const char *yaml, *error;
  } cases[] = {
      {"model: {d_model: 250}\n",
       "a.yaml:1:18: model.d_model: 4 heads do not divide model.d_model = 250; nearest: 1 or 5 heads, or set "
       "model.head_dim"},
      {"model:\n  n_heads: 3\n",
       "a.yaml:2:12: model.n_heads: 3 heads do not divide model.d_model = 256; nearest: 2 or 4 heads, or set "
       "model.head_dim"},
      {"model: {d_model: 250, head_dim: 64}\n", ""},
      {"model: {head_dim: 63}\n",
       "a.yaml:1:19: model.head_dim: a head is 63 wide; rotary embedding turns pairs, so it must be even"},
      {"model: {d_model: 252}\n",
       "a.yaml:1:18: model.d_model: a head is 63 wide (model.d_model / model.n_heads); rotary embedding turns pairs, "
       "so "
       "it must be even"},
      {"model: {positions: relative_bias, head_dim: 63}\n",
       "a.yaml:1:45: model.head_dim: a head is 63 wide; it must be even"},
      {"model: {relative_buckets: 9}\n",
       "a.yaml:1:27: model.relative_buckets: 9 buckets; half of them hold one distance each, so it must be even"},
      {"model: {relative_max_distance: 16}\n",
       "a.yaml:1:32: model.relative_max_distance: half of 32 buckets hold the distances below 16, the others those up "
       "to 16; at least 17"},
      {"model: {relative_max_distance: 17}\n", ""},
      {"model: {relative_buckets: 1}\n",
       "a.yaml:1:27: model.relative_buckets: wanted an integer from 2 to 1024, came 1"},
      {"model: {n_kv_heads: 3}\n",
       "a.yaml:1:21: model.n_kv_heads: 3 key and value heads do not divide 4 query heads; nearest: 2 or 4"},
      {"model: {n_kv_heads: 8}\n",
       "a.yaml:1:21: model.n_kv_heads: 8 key and value heads do not divide 4 query heads; nearest: 4"},
      {"model: {d_model: 1048576, n_layers: 4096}\nmoe: {experts: 65536}\n",
       "a.yaml:1:18: model.d_model: about 2.36126e+21 parameters; at most 1e+15 can be counted"},
      {"moe: {experts: 1}\n", "a.yaml:1:16: moe.experts: a token cannot go to 2 of 1 experts; nearest: 1"},
      {"router: {top_k: 1}\n",
       "a.yaml:1:17: router.top_k: with router.top_k = 1 the weight would always be 1, and the router would get no "
       "gradient "
       "from the language-model loss; set router.renormalise: false (Switch)"},
      {"router: {top_k: 1, renormalise: false}\n", ""},
      {"router: {kind: mixtral, renormalise: false}\n",
       "a.yaml:1:38: router.renormalise: router.kind = mixtral has true here; router.kind = top_k leaves it free"},
      {"router: {kind: switch}\n", ""},
      {"router: {kind: switch, top_k: 2}\n",
       "a.yaml:1:31: router.top_k: router.kind = switch has 1 here; router.kind = top_k leaves it free"},
      {"router: {kind: glam, second_threshold: 0.5}\n",
       "a.yaml:1:40: router.second_threshold: router.kind = glam has 0.0 here; router.kind = top_k leaves it free"},
      {"router: {kind: expert_choice}\n",
       "a.yaml:1:16: router.kind: experts choose among all tokens of a group, so later tokens decide where earlier "
       "ones "
       "go: a language model then sees the future in training, and cannot do the same when it generates; "
       "router.allow_future_tokens: true accepts that"},
      {"router: {kind: expert_choice, allow_future_tokens: true}\n", ""},
      {"router: {kind: batch_prioritised}\n",
       "a.yaml:1:16: router.kind: the surest tokens of a group are admitted first, so later tokens decide where "
       "earlier "
       "ones go: a language model then sees the future in training, and cannot do the same when it generates; "
       "router.allow_future_tokens: true accepts that"},
      {"router: {kind: expert_choice, allow_future_tokens: true, expert_cap: 2}\n", ""},
      {"router: {kind: expert_choice, allow_future_tokens: true, expert_cap: 1}\n",
       "a.yaml:1:70: router.expert_cap: experts that take 512 rows of the 256 tokens of a group give them more than 1 "
       "each; nearest: 2"},
      {"router: {kind: expert_choice, allow_future_tokens: true, capacity_factor: 100, expert_cap: 8}\n", ""},
      {"router: {expert_cap: 3}\n", "a.yaml:1:22: router.expert_cap: tokens that choose have router.top_k experts"},
      {"moe: {experts: 160}\nrouter: {kind: deepseek_v2}\n", ""},
      {"moe: {experts: 160}\nrouter: {kind: deepseek_v2, device_capacity: 1, allow_future_tokens: true}\n", ""},
      {"moe: {experts: 160}\nrouter: {kind: deepseek_v2, device_capacity: 1}\n",
       "a.yaml:2:46: router.device_capacity: what is dropped are the lowest scores of a group, so later tokens decide "
       "where earlier ones go: a language model then sees the future in training, and cannot do the same when it "
       "generates; router.allow_future_tokens: true accepts that"},
      {"router: {device_capacity: 1, expert_groups: 2, allow_future_tokens: true}\n",
       "a.yaml:1:27: router.device_capacity: groups of experts have a capacity, or experts have, and all choices "
       "count; "
       "set the other to 0"},
      {"router: {spared_groups: 0.3}\n",
       "a.yaml:1:25: router.spared_groups: nothing is dropped by groups of experts, so that none needs to be spared"},
      {"moe: {expert_dropout: 0.4}\ntrain: {global_batch: 4194304}\n",
       "a.yaml:1:23: moe.expert_dropout: the choices of a step must be fewer than 2^31, by which dropout counts them"},
      {"moe: {expert_dropout: 0.4}\nrouter: {kind: expert_choice, allow_future_tokens: true}\n"
       "train: {global_batch: 1048576}\n",
       "a.yaml:1:23: moe.expert_dropout: the choices of a step must be fewer than 2^31, by which dropout counts them"},
      {"router: {kind: deepseek_v2}\n",
       "a.yaml:1:16: router.kind: 6 choices do not fit the 3 experts of the groups that a token may go to; "
       "nearest: 3"},
      {"moe: {experts: 256}\nrouter: {kind: deepseek_v3, bias_rate: 0}\n", ""},
      {"moe: {experts: 12}\nrouter: {expert_groups: 5}\n",
       "a.yaml:2:25: router.expert_groups: 12 experts do not divide into 5 groups; nearest: 4 or 6"},
      {"moe: {experts: 12}\nrouter: {expert_groups: 4, groups_met: 5, group_best: 4}\n",
       "a.yaml:2:40: router.groups_met: a token cannot go to 5 of 4 groups; nearest: 4\n"
       "a.yaml:2:55: router.group_best: a group of 3 experts has no 4 best; nearest: 3"},
      {"router: {kind: hash}\n", ""},
      {"router: {kind: hash, jitter: 0.1}\n", "a.yaml:1:30: router.jitter: has no effect on tokens that are hashed"},
      {"router: {kind: hash, weight_scale: 2, init_scale: 1}\n",
       "a.yaml:1:36: router.weight_scale: has no effect on tokens that are hashed\n"
       "a.yaml:1:51: router.init_scale: has no effect on tokens that are hashed"},
      {"router: {choice: experts, noise: true, load_loss: 0.1, renormalise: false, balance_loss: 0,\n"
       "  allow_future_tokens: true}\n",
       "a.yaml:1:51: router.load_loss: has no effect where experts choose, evenly"},
      {"router: {bias_rate: 0.1}\n", "a.yaml:1:21: router.bias_rate: there is no bias to move"},
      {"router: {expert_groups: 4, group_best: 2}\n",
       "a.yaml:1:40: router.group_best: a token may go to all groups, whatever their best scores"},
      {"router: {expert_groups: 4, group_best: 2, groups_met: 3}\n", ""},
      {"router: {top_k: 1, renormalise: false, second_threshold: 0.5}\n",
       "a.yaml:1:58: router.second_threshold: there is no second choice"},
      {"router: {device_capacity: 1, capacity_factor: 0, allow_future_tokens: true}\n",
       "a.yaml:1:27: router.device_capacity: one group of experts has room for all choices"},
      {"router: {device_capacity: 0.9, capacity_factor: 0, allow_future_tokens: true}\n", ""},
      {"router: {kind: soft}\n", ""},
      {"router: {kind: soft, top_k: 8}\n", ""},
      {"router: {kind: soft, top_k: 2}\n",
       "a.yaml:1:29: router.top_k: soft routing goes to all experts; set 0, or router.kind: top_k"},
      {"router: {kind: noisy_top_k}\n", ""},
      {"router: {kind: noisy_top_k, top_k: 8}\n",
       "a.yaml:1:36: router.top_k: where tokens go to all experts their load is certain"},
      {"router: {load_loss: 0.1}\n",
       "a.yaml:1:21: router.load_loss: the expected load is that under noise; set router.noise: true"},
      {"router: {device_loss: 0.1}\n",
       "a.yaml:1:23: router.device_loss: there is one group of experts, which has all the load"},
      {"router: {scores: sigmoid}\n",
       "a.yaml:1:18: router.scores: the z-loss is of the softmax's normaliser, which there is none of"},
      {"router: {kind: mixtral, top_k: 4, renormalise: true, z_loss: 0.1}\n", ""},
      {"moe: {layers: [1, 4, -1]}\n",
       "a.yaml:1:19: moe.layers[1]: no block 4; model.n_layers = 4 gives blocks 0 to 3\n"
       "a.yaml:1:22: moe.layers[2]: no block -1; model.n_layers = 4 gives blocks 0 to 3"},
      {"parallel: {pipeline: 5}\n",
       "a.yaml:1:22: parallel.pipeline: 5 stages for 4 blocks, of which each wants one; nearest: 4"},
      {"moe: {layers: [1, 3, 1]}\n", "a.yaml:1:22: moe.layers[2]: block 1 is listed twice"},
      {"router: {group_size: 100}\n",
       "a.yaml:1:22: router.group_size: groups of 100 tokens do not divide train.seq_len = 256; nearest: 64 or 128"},
      {"parallel: {expert: 3}\n",
       "a.yaml:1:20: parallel.expert: 8 experts do not divide over 3 ranks; nearest: 2 or 4"},
      {"parallel: {data: 6, expert: 4}\ntrain: {global_batch: 36}\n",
       "a.yaml:1:29: parallel.expert: 4 expert ranks do not divide 6 data ranks; nearest: 3 or 6"},
      {"moe: {experts: 0}\nparallel: {expert: 2}\n",
       "a.yaml:2:20: parallel.expert: a dense model (moe.experts = 0) has no experts to spread over 2 ranks; set it to "
       "1"},
      {"moe: {experts: 0}\nrouter: {top_k: 1}\n", ""},
      {"parallel: {data: 6}\n",
       "a.yaml:1:18: parallel.data: 32 samples do not divide over 6 data ranks; nearest: 30 or 36"},
      {"train: {micro_batch: 5}\n",
       "a.yaml:1:22: train.micro_batch: micro-batches of 5 do not divide train.global_batch = 32; nearest: 4 or 8"},
      {"parallel: {data: 8}\ntrain: {micro_batch: 3}\n",
       "a.yaml:2:22: train.micro_batch: a rank's 4 samples of a step (32 over 8) do not divide into micro-batches of "
       "3; "
       "nearest: 2 or 4"},
      {"data: {train: [{path: \"\"}]}\n",
       "a.yaml:1:23: data.train[0].path: wanted the prefix of a token file, came an empty text"},
      {"data: {valid: [{path: a, weight: 0}, {path: b, weight: 0}]}\n",
       "a.yaml:1:15: data.valid: every weight is 0; one must be above"},
      {"run: {dir: \"\"}\n", "a.yaml:1:12: run.dir: wanted a folder, came an empty text"},
  };
  for (const auto& [yaml, error] : cases) EXPECT_EQ(errors_of(yaml), error) << yaml;
}

TEST(ConfigRules, ABrokenRuleStandsWhereItsLatestKeyDoes) {
  EXPECT_EQ(usage_error_of([] { read_config("model: {d_model: 256}\n", "a.yaml", {"model.n_heads=3"}); }),
            "command line: model.n_heads=3: model.n_heads: 3 heads do not divide model.d_model = 256; nearest: 2 or 4 "
            "heads, or set model.head_dim");
}

TEST(ConfigRules, LayoutNamesTheNearestThatWouldDo) {
  Config config;
  config.train.global_batch = 30;
  config.parallel.expert = 2;
  EXPECT_EQ(usage_error_of([&] { check_layout(config, 2); }), "");
  EXPECT_EQ(usage_error_of([&] { check_layout(config, 4); }),
            "train.global_batch: 30 samples do not divide over 4 data ranks; nearest: 28 or 32");
  EXPECT_EQ(usage_error_of([&] { check_layout(config, 64); }),
            "train.global_batch: 30 samples do not divide over 64 data ranks; nearest: 64");
  EXPECT_EQ(usage_error_of([&] { check_layout(config, 5); }),
            "parallel.expert: 2 expert ranks do not divide the run's 5; nearest: 1 or 5");
  config.train.micro_batch = 4;
  EXPECT_EQ(
      usage_error_of([&] { check_layout(config, 2); }),
      "train.micro_batch: a rank's 15 samples of a step (30 over 2) do not divide into micro-batches of 4; nearest: "
      "3 or 5");
  config.train.micro_batch = 5;
  config.parallel.data = 6;
  EXPECT_EQ(usage_error_of([&] { check_layout(config, 6); }), "");
  EXPECT_EQ(usage_error_of([&] { check_layout(config, 3); }),
            "parallel.data: wanted 6 ranks, but the run has 3; set it to 3, or to 0 for all of them\n"
            "parallel.expert: 2 expert ranks do not divide the run's 3; nearest: 1 or 3");

  config.parallel = {.pipeline = 3, .tensor = 2, .expert = 4};
  EXPECT_EQ(usage_error_of([&] { check_layout(config, 12); }), "");
  EXPECT_EQ(usage_error_of([&] { check_layout(config, 9); }),
            "parallel.tensor: 2 tensor ranks do not divide a stage's 3; nearest: 1 or 3\n"
            "parallel.expert: 4 expert ranks do not divide a stage's 3; nearest: 3");
  EXPECT_EQ(usage_error_of([&] { check_layout(config, 16); }).substr(0, 77),
            "parallel.pipeline: 3 stages do not divide the run's 16; nearest: 2 or 4\nparal");
  config.parallel = {.data = 2, .pipeline = 2};
  EXPECT_EQ(usage_error_of([&] { check_layout(config, 2); }),
            "parallel.data: wanted 4 ranks, but the run has 2; set it to 1, or to 0 for all of them");
}

TEST(ConfigRules, TrainingWantsTokenFiles) {
  Config config;
  EXPECT_NE(usage_error_of([&] { check_training(config); }).find("data.train: no token files"), std::string::npos);
  config.data.train = {{.path = "a"}};
  EXPECT_EQ(usage_error_of([&] { check_training(config); }), "");
}

TEST(ConfigRules, WarnsOfWhatIsRarelyMeant) {
  Config config;
  EXPECT_TRUE(warnings(config).empty());
  config.train.steps = 50;
  EXPECT_EQ(
      warnings(config),
      std::vector<std::string>{"optim.schedule.warmup_steps: the run's 50 steps end before its warm-up of 100 does"});
  config.train.steps = 500;
  config.optim.schedule.decay_steps = 450;
  config.moe.every = 5;
  EXPECT_EQ(warnings(config),
            (std::vector<std::string>{"optim.schedule.decay_steps: the run ends before its decay of 450 steps does",
                                      "moe.every: none of the 4 blocks is MoE, so the model is dense"}));
  config = {};
  config.optim.update_clip = 2;
  config.optim.scale_floor = 0;
  config.optim.schedule.hold_steps = 10;
  EXPECT_EQ(warnings(config),
            (std::vector<std::string>{"optim.update_clip: has no effect; it is Adafactor's",
                                      "optim.scale_floor: has no effect; it is Adafactor's",
                                      "optim.schedule.hold_steps: has no effect; it is the schedule inverse_sqrt's"}));
  config.optim = optim_preset(OptimKind::adafactor);
  config.optim.update_clip = 2;
  EXPECT_TRUE(warnings(config).empty());
  config.optim.schedule.decay_steps = 1'000'000;
  EXPECT_EQ(warnings(config),
            std::vector<std::string>{"optim.schedule.decay_steps: has no effect; it is of schedules with an end"});
  config = {};
  config.moe.experts = 0;
  config.moe.layers = {1};
  EXPECT_EQ(warnings(config),
            std::vector<std::string>{"moe.layers: has no effect, for moe.experts = 0 makes the model dense"});
  config.moe.layers = {};
  config.moe.shared_experts = 2;
  config.moe.expert_dropout = 0.1;
  EXPECT_EQ(warnings(config),
            (std::vector<std::string>{"moe.shared_experts: has no effect, for moe.experts = 0 makes the model dense",
                                      "moe.expert_dropout: has no effect, for moe.experts = 0 makes the model dense"}));
  config = {};
  config.parallel = {.data = 2, .pipeline = 4};
  const char* waits = " micro-batches keeps most of 4 pipeline stages waiting; make it smaller";
  EXPECT_EQ(warnings(config), std::vector<std::string>{text("train.micro_batch: a step of 1", waits)});
  config.train.micro_batch = config.train.global_batch / 4;
  EXPECT_EQ(warnings(config), std::vector<std::string>{text("train.micro_batch: a step of 2", waits)});
  config.train.micro_batch = config.train.global_batch / 8;
  EXPECT_TRUE(warnings(config).empty());
}

TEST(ConfigRules, ResolvedLeavesNothingToWorkOut) {
  Config config;
  config.model.d_model = 96;
  const Config alone = resolved(config);
  EXPECT_EQ(alone.model.n_kv_heads, 4);
  EXPECT_EQ(alone.model.head_dim, 24);
  EXPECT_EQ(alone.model.d_ff, 256);  // 8/3 of 96 is 256
  EXPECT_EQ(alone.moe.d_ff, 256);
  EXPECT_EQ(alone.moe.router.group_size, 256);
  EXPECT_EQ(alone.train.micro_batch, 0);  // nobody knows the ranks

  const Config on_four = resolved(config, 4);
  EXPECT_EQ(on_four.parallel.data, 4);
  EXPECT_EQ(on_four.train.micro_batch, 8);

  config.model.d_ff = 100;
  config.moe.router.group_size = 32;
  config.train.micro_batch = 2;
  const Config chosen = resolved(config, 4);
  EXPECT_EQ(chosen.model.d_ff, 100);
  EXPECT_EQ(chosen.moe.d_ff, 100);
  EXPECT_EQ(chosen.moe.router.group_size, 32);
  EXPECT_EQ(chosen.train.micro_batch, 2);
}

}  // namespace
}  // namespace switchyard
