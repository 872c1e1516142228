#include "train/config_writer.h"

#include <gtest/gtest.h>

#include "train/config_reader.h"
#include "train/fields.h"
#include "train/scalar.h"

namespace switchyard {
namespace {

// A legal configuration in which no field has its default, the router's aside.
Config unusual() {
  Config c;
  c.run = {.dir = "runs/x y",
           .seed = 18446744073709551615u,
           .precision = Precision::fp32,
           .device = DeviceChoice::cuda,
           .threads = 3};
  c.model = {.vocab_size = 300,
             .d_model = 96,
             .n_layers = 7,
             .n_heads = 6,
             .n_kv_heads = 2,
             .head_dim = 18,
             .d_ff = 200,
             .activation = Activation::relu,
             .qk_norm = false,
             .tied_embeddings = false,
             .norm_eps = 1.0 / 3,
             .positions = Positions::relative_bias,
             .rope_theta = 12345.678901234567,
             .relative_buckets = 18,
             .relative_max_distance = 77,
             .init_std = 5e-324};
  c.moe = {.experts = 12,
           .d_ff = 40,
           .activation = Activation::geglu,
           .shared_experts = 1,
           .expert_dropout = 0.4,
           .layers = {1, 4, 6},
           .every = 3,
           .first_dense = 2,
           .dispatch = Dispatch::padded,
           .overlap = Overlap::on};
  c.data.train = {{.path = "a/b-1.c", .weight = 0.1}, {.path = "", .weight = 2}};
  c.data.train[1].path = "\"odd\" \\ text: # \n\t\x01 'caf\xC3\xA9' ~";
  c.data.valid = {{.path = "null", .weight = 1e12}};
  c.train = {.steps = 999,
             .seq_len = 64,
             .global_batch = 48,
             .micro_batch = 4,
             .recompute = Recompute::block,
             .log_every = 7,
             .tensorboard = false,
             .eval_every = 11,
             .eval_batches = 13};
  c.optim = {.kind = OptimKind::adafactor,
             .lr = 1e-4,
             .beta1 = 0.8,
             .beta2 = 0.9999999,
             .eps = 1e-37,
             .weight_decay = 0,
             .clip = 1e9,
             .update_clip = 3,
             .scale_floor = 0.125,
             .schedule = {.kind = ScheduleKind::inverse_sqrt,
                          .warmup_steps = 5,
                          .min_ratio = 0.25,
                          .decay_steps = 9,
                          .hold_steps = 21}};
  c.parallel = {.data = 6,
                .pipeline = 3,
                .tensor = 2,
                .expert = 3,
                .expert_tensor = 2,
                .shard_optimizer = true,
                .timeout_s = 1.0 / 3 + 1,
                .check_every = 19};
  c.checkpoint = {.every = 17, .keep = 2, .async = false};
  c.health = {.every = 7,
              .raise_by = 1.0 / 3 + 1,
              .raise_to = 99,
              .alarms = {{.watch = 3,
                          .above = 0.1 + 0.2,
                          .below = -1e-300,
                          .readings = 2,
                          .layers = {1, 6},
                          .action = AlarmAction::stop},
                         {.watch = 5, .below = 2}}};
  c.debug.collectives = true;
  return c;
}

// Routers of which no one can have all that others have; each field has another value than its default in one of them.
std::vector<RouterConfig> unusual_routers() {
  return {{.kind = RouterKind::st_moe,
           .init_scale = 9.999999999999998,
           .jitter = 0.5,
           .top_k = 3,
           .expert_groups = 4,
           .groups_met = 3,
           .group_best = 2,
           .second_threshold = 0.2,
           .weight_scale = 3,
           .capacity_factor = 0.1 + 0.2,
           .group_size = 16,
           .balance_loss = 1e-17,
           .balance_counts = BalanceCounts::all,
           .balance_scope = BalanceScope::global,
           .device_loss = 0.1,
           .communication_loss = 0.2,
           .z_loss = 2e-3},
          {.scores = Scoring::sigmoid,
           .bias = true,
           .bias_rate = 0.5,
           .renormalise = false,
           .admission = Admission::priority,
           .allow_future_tokens = true,
           .z_loss = 0},
          {.noise = true, .importance_loss = 0.1, .load_loss = 0.2},
          {.kind = RouterKind::expert_choice,
           .choice = Choosing::experts,
           .renormalise = false,
           .expert_cap = 3,
           .allow_future_tokens = true,
           .balance_loss = 0},
          {.expert_groups = 4,
           .capacity_factor = 0,
           .device_capacity = 1.5,
           .spared_groups = 0.25,
           .allow_future_tokens = true}};
}

void expect_all_differ(const Section& a, const Section& b, const std::string& path) {
  ASSERT_EQ(a.fields.size(), b.fields.size());
  for (std::size_t i = 0; i < a.fields.size(); ++i) {
    if (std::holds_alternative<SectionList>(a.fields[i].value)) continue;
    EXPECT_NE(value_text(a.fields[i]), value_text(b.fields[i])) << path << "." << a.fields[i].name;
  }
  for (std::size_t i = 0; i < a.sections.size(); ++i)
    if (a.sections[i].name != "router") expect_all_differ(a.sections[i], b.sections[i], a.sections[i].name);
}

void expect_all_equal(const Section& a, const Section& b, const std::string& path) {
  for (std::size_t i = 0; i < a.fields.size(); ++i) {
    EXPECT_EQ(value_text(a.fields[i]), value_text(b.fields[i])) << path << "." << a.fields[i].name;
    if (const auto* list = std::get_if<SectionList>(&a.fields[i].value)) {
      const std::vector<Section> left = list->items(), right = std::get<SectionList>(b.fields[i].value).items();
      ASSERT_EQ(left.size(), right.size());
      for (std::size_t j = 0; j < left.size(); ++j) expect_all_equal(left[j], right[j], a.fields[i].name);
    }
  }
  for (std::size_t i = 0; i < a.sections.size(); ++i)
    expect_all_equal(a.sections[i], b.sections[i], a.sections[i].name);
}

TEST(ConfigWriter, WritesEveryRouter) {
  RouterConfig defaults;
  const Section usual = describe(defaults);
  std::vector<bool> differs(usual.fields.size());
  for (const RouterConfig& router : unusual_routers()) {
    Config config = unusual();
    config.moe.router = router;
    Config again = read_config(write_config(config), "written");
    expect_all_equal(describe(config), describe(again), "");
    EXPECT_EQ(again.moe.router.capacity_factor, router.capacity_factor);  // to the last bit
    const Section is = describe(config.moe.router);
    for (std::size_t i = 0; i < differs.size(); ++i)
      differs[i] = differs[i] || value_text(is.fields[i]) != value_text(usual.fields[i]);
  }
  for (std::size_t i = 0; i < differs.size(); ++i)
    EXPECT_TRUE(differs[i]) << "give " << usual.fields[i].name << " another value above";
}

TEST(ConfigWriter, WhatIsWrittenReadsBackTheSame) {
  for (const Comments comments : {Comments::no, Comments::yes}) {
    Config config = unusual(), defaults;
    expect_all_differ(describe(config), describe(defaults), "");  // a new field must be given a value above
    Config again = read_config(write_config(config, comments), "written");
    expect_all_equal(describe(config), describe(again), "");
    EXPECT_EQ(again.data.train.at(1).path, config.data.train.at(1).path);
    EXPECT_EQ(again.model.norm_eps, 1.0 / 3);
    EXPECT_EQ(again.model.init_std, 5e-324);
    EXPECT_EQ(again.moe.layers, config.moe.layers);
    EXPECT_EQ(again.health.alarms.at(0).above, 0.1 + 0.2);
    EXPECT_EQ(again.health.alarms.at(1).above, std::nullopt);
    EXPECT_EQ(again.run.seed, config.run.seed);
  }
}

TEST(ConfigWriter, WritesEveryFieldOnALineOfItsOwn) {
  const std::string yaml = write_config(unusual());
  for (const char* line :
       {"run:\n  dir: \"runs/x y\"\n  seed: 18446744073709551615\n  precision: fp32\n", "  layers: [1, 4, 6]\n",
        "  train:\n    - path: a/b-1.c\n      weight: 0.1\n    - path: \"", "  valid:\n    - path: \"null\"\n",
        "  schedule:\n    kind: inverse_sqrt\n", "  clip: 1.0e+09\n", "  eps: 1.0e-37\n"})
    EXPECT_NE(yaml.find(line), std::string::npos) << line << "not in\n" << yaml;
  EXPECT_EQ(yaml.find('#', yaml.find("valid")), std::string::npos);
}

TEST(ConfigWriter, CommentsTellMeaningAndRange) {
  const std::string yaml = write_config(Config{}, Comments::yes);
  EXPECT_NE(yaml.find("  experts: 8           # experts of an MoE block; 0 makes the model dense [0 to 65536]\n"),
            std::string::npos);
  EXPECT_NE(yaml.find("moe:  # experts, and which blocks have them\n"), std::string::npos);
  EXPECT_NE(yaml.find("train: []  # token files to train on: [{path: text, weight: number}]\n"), std::string::npos);
}

TEST(ConfigWriter, NumbersAreTheShortestThatReadBack) {
  EXPECT_EQ(number_text(1), "1.0");
  EXPECT_EQ(number_text(0.1), "0.1");
  EXPECT_EQ(number_text(-0.0), "-0.0");
  EXPECT_EQ(number_text(1e-8), "1.0e-08");
  EXPECT_EQ(number_text(1.5e300), "1.5e+300");
  EXPECT_EQ(number_text(0.1 + 0.2), "0.30000000000000004");
}

// Texts that some reader of YAML takes for something else must come back as they went.
TEST(ConfigWriter, TextsSurvive) {
  for (const char* text : {"~",
                           "null",
                           "NULL",
                           "true",
                           "No",
                           "on",
                           "y",
                           "3",
                           "0x1",
                           "1e5",
                           ".5",
                           ".inf",
                           ".NaN",
                           ".",
                           "..",
                           "-",
                           "- a",
                           "a: b",
                           "a #b",
                           "#",
                           "'",
                           "\"",
                           "\\",
                           "*a",
                           "&a",
                           "!a",
                           "%a",
                           "@a",
                           "`a",
                           "[",
                           "{",
                           "|",
                           ">",
                           " a ",
                           "a\nb\n",
                           "\r",
                           "\t",
                           "\x7f",
                           "<<",
                           "=",
                           "---",
                           "caf\xC3\xA9",
                           "\xF0\x9F\x98\x80",
                           "/a/b_c-d.e"}) {
    Config config;
    config.data.train = {{.path = text}};
    EXPECT_EQ(read_config(write_config(config), "written").data.train.at(0).path, text);
  }
}

}  // namespace
}  // namespace switchyard
