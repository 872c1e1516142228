#include "train/config_reader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tensor/error.h"
#include "train/config_writer.h"

namespace switchyard {
namespace {

std::string errors_of(const std::string& yaml, const std::vector<std::string>& overrides = {}) {
  try {
    read_config(yaml, "a.yaml", overrides);
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::usage);
    return error.what();
  }
  return "";
}

// Configurations that are wrong in one way, and the one line that each must give.
struct Wrong {
  const char* yaml;
  const char* line;
};

const Wrong wrong_ones[] = {
    // keys
    {"model:\n  n_head: 4\n", "a.yaml:2:3: model.n_head: unknown key; did you mean n_heads?"},
    {"model: {n-layers: 4}\n", "a.yaml:1:9: model.n-layers: unknown key; did you mean n_layers?"},
    {"model:\n  d_model: 64\n  top_k: 1\n", "a.yaml:3:3: model.top_k: unknown key; belongs under router"},
    {"model: {layers: [1]}\n", "a.yaml:1:9: model.layers: unknown key; did you mean n_layers or moe.layers?"},
    {"train: {num_experts: 4}\n", "a.yaml:1:9: train.num_experts: unknown key; did you mean moe.experts?"},
    {"optim: {wramup_steps: 4}\n",
     "a.yaml:1:9: optim.wramup_steps: unknown key; did you mean optim.schedule.warmup_steps?"},
    {"parallel: {zzz: 4}\n",
     "a.yaml:1:12: parallel.zzz: unknown key; wanted data, pipeline, tensor, expert, expert_tensor, shard_optimizer"},
    {"modle: {d_model: 4}\n", "a.yaml:1:1: modle: unknown key; did you mean model?"},
    {"# none\nsteps: 10\n", "a.yaml:2:1: steps: unknown key; belongs under train"},
    {"moe.every: 3\n", "a.yaml:1:1: moe.every: unknown key; dots are for the command line; write every below moe:"},
    {"model:\n  d_model: 64\n  n_heads: 4\n  d_model: 64\n", "a.yaml:4:3: model.d_model: repeated; first on line 2"},
    {"model: {}\nmoe: {}\nmodel: {}\n", "a.yaml:3:1: model: repeated; first on line 1"},
    {"data:\n  train:\n    - weight: 2\n", "a.yaml:3:7: data.train[0].path: is missing"},
    {"data: {train: [{path: a, wieght: 2}]}\n", "a.yaml:1:26: data.train[0].wieght: unknown key; did you mean weight?"},
    {"model: {<<: {d_model: 64}}\n", "a.yaml:1:9: model.<<: unknown key; wanted vocab_size, d_model, "},
    // types
    {"train: {steps: 3.0}\n", "a.yaml:1:16: train.steps: wanted an integer from 1 to 1000000000, came 3.0"},
    {"train: {steps: \"3\"}\n",
     "a.yaml:1:16: train.steps: wanted an integer from 1 to 1000000000, came \"3\" (remove the quotes)"},
    {"train: {steps: 010}\n", "came 010 (remove the leading zeros)"},
    {"train: {steps: 0x10}\n", "came 0x10"},
    {"train: {steps: 1_000}\n", "came 1_000"},
    {"train: {steps: 1e3}\n", "came 1e3"},
    {"train: {steps: ten}\n", "came ten"},
    {"train: {steps: }\n", "a.yaml:1:9: train.steps: wanted an integer from 1 to 1000000000, came nothing"},
    {"train: {steps: [1]}\n", "a.yaml:1:16: train.steps: wanted an integer from 1 to 1000000000, came a list"},
    {"optim: {lr: fast}\n", "a.yaml:1:13: optim.lr: wanted a number from 0 to 100, came fast"},
    {"optim: {lr: .inf}\n", "a.yaml:1:13: optim.lr: wanted a number from 0 to 100, came .inf"},
    {"optim: {lr: nan}\n", "a.yaml:1:13: optim.lr: wanted a number from 0 to 100, came nan"},
    {"optim: {lr: 0x1p-3}\n", "a.yaml:1:13: optim.lr: wanted a number from 0 to 100, came 0x1p-3"},
    {"model: {qk_norm: yes}\n", "a.yaml:1:18: model.qk_norm: wanted true or false, came yes (write true)"},
    {"model: {qk_norm: Off}\n", "a.yaml:1:18: model.qk_norm: wanted true or false, came Off (write false)"},
    {"model: {qk_norm: 'true'}\n",
     "a.yaml:1:18: model.qk_norm: wanted true or false, came \"true\" (remove the quotes)"},
    {"run: {dir: }\n", "a.yaml:1:7: run.dir: wanted text, came nothing"},
    {"run: {dir: [a]}\n", "a.yaml:1:12: run.dir: wanted text, came a list"},
    {"run: {precision: fp16}\n", "a.yaml:1:18: run.precision: wanted fp32 or bf16, came fp16"},
    {"optim: {schedule: {kind: cosin}}\n", "came cosin; did you mean cosine?"},
    {"optim:\n  schedule: cosine\n", "a.yaml:2:13: optim.schedule: wanted a section with its keys, came cosine"},
    {"model:\nmoe: {}\n", "a.yaml:1:1: model: nothing below it; write its keys, or leave the section out"},
    {"model:\n- d_model: 4\n", "a.yaml:2:1: model: wanted a section with its keys, came a list"},
    {"moe: {layers: 3}\n", "a.yaml:1:15: moe.layers: wanted a list of integers such as [1, 3], came 3"},
    {"moe:\n  layers: [1, two]\n", "a.yaml:2:15: moe.layers[1]: wanted an integer, came two"},
    {"data: {train: corpus}\n",
     "a.yaml:1:15: data.train: wanted a list such as [{path: ..., weight: ...}], came corpus"},
    {"data: {valid: [corpus]}\n", "a.yaml:1:16: data.valid[0]: wanted {path: ..., weight: ...}, came corpus"},
    // ranges
    {"train: {steps: 0}\n", "a.yaml:1:16: train.steps: wanted an integer from 1 to 1000000000, came 0"},
    {"train: {steps: -5}\n", "came -5"},
    {"train: {steps: 99999999999999999999}\n", "came 99999999999999999999"},
    {"run: {seed: -1}\n", "a.yaml:1:13: run.seed: wanted an integer from 0 to 2^64 - 1, came -1"},
    {"run: {seed: 18446744073709551616}\n", "came 18446744073709551616"},
    {"optim: {kind: adafactor, eps: 0}\n", "a.yaml:1:31: optim.eps: without it rows and columns of zeros"},
    {"optim: {beta2: 1}\n", "a.yaml:1:16: optim.beta2: wanted a number from 0 to 0.9999999, came 1"},
    {"optim: {lr: 1e999}\n", "came 1e999"},
    {"parallel: {data: 4294967297}\n", "a.yaml:1:18: parallel.data: wanted an integer from 0 to 16777216"},
    {"data: {train: [{path: a, weight: -1}]}\n",
     "a.yaml:1:34: data.train[0].weight: wanted a number from 0 to 1000000000000, came -1"},
    // documents
    {"", "a.yaml:1:1: the file is empty"},
    {"# nothing\n---\n", "the file is empty"},
    {"- model\n", "a.yaml:1:1: wanted sections such as run and model, came a list"},
    {"model\n", "a.yaml:1:1: wanted sections such as run and model, came model"},
    {"model: {d_model: 64\n", "a.yaml:2:1: not YAML that can be read: end of map flow not found"},
    {"model:\n\td_model: 64\n", "(this line is indented with a tab; use spaces)"},
    {"model: {}\n---\nmoe: {}\n", "a.yaml:2:1: not YAML that can be read: a second document begins here"},
    {"model: {d_model: !!int 64}\n", "a.yaml:1:18: not YAML that can be read: tags such as !!int"},
    {"model: &m {d_model: *m}\n", "a.yaml:1:21: not YAML that can be read: an alias within the value that it names"},
    {"model: *m\n", "a.yaml:1:8: not YAML that can be read: the referenced anchor is not defined"},
    {"? [model]\n: 3\n", "a.yaml:1:3: not YAML that can be read: a key must be a name"},
    {"model: {}\n# \x04 ends the file for some readers\nmoe: {}\n", "a.yaml:2:3: a control character (byte 4)"},
    {"run: {dir: \"caf\xE9\"}\n", "a.yaml:1:16: not UTF-8 text"},
};

TEST(ConfigReader, EachMistakeGivesOneLine) {
  for (const Wrong& wrong : wrong_ones) {
    const std::string errors = errors_of(wrong.yaml);
    EXPECT_NE(errors.find(wrong.line), std::string::npos) << wrong.yaml << "gave: " << errors;
    EXPECT_EQ(errors.find("\n"), std::string::npos) << wrong.yaml << "gave: " << errors;
  }
}

TEST(ConfigReader, ReportsAllMistakesInOrderOfTheFile) {
  EXPECT_EQ(errors_of("train:\n"
                      "  steps: 0\n"
                      "model:\n"
                      "  n_head: 3\n"
                      "  d_model: 90\n"  // 4 heads would not divide it: not said, for n_head was meant
                      "router:\n"
                      "  top_k: 9\n"
                      "optim: {lr: x, lr: 1}\n",
                      {"run.sede=3", "train.steps=0"}),
            "a.yaml:2:10: train.steps: wanted an integer from 1 to 1000000000, came 0\n"
            "a.yaml:4:3: model.n_head: unknown key; did you mean n_heads?\n"
            "a.yaml:7:10: router.top_k: a token cannot go to 9 of 8 experts; nearest: 8\n"
            "a.yaml:8:13: optim.lr: wanted a number from 0 to 100, came x\n"
            "a.yaml:8:16: optim.lr: repeated; first on line 8\n"
            "command line: run.sede=3: run.sede: unknown key; did you mean seed?\n"
            "command line: train.steps=0: train.steps: wanted an integer from 1 to 1000000000, came 0");
}

TEST(ConfigReader, CountsWhatIsTooMuchToPrint) {
  std::string yaml = "model:\n";
  for (int i = 0; i < 80; ++i) yaml += "  zzz" + std::to_string(i) + ": 1\n";
  const std::string errors = errors_of(yaml);
  EXPECT_EQ(std::ranges::count(errors, '\n'), 50);
  EXPECT_TRUE(errors.ends_with("\n30 more like these")) << errors;
}

TEST(ConfigReader, ShowsLongTextClippedOnOneLine) {
  const std::string errors = errors_of("train: {steps: \"a\\nb" + std::string(1000, 'x') + "\"}\n");
  EXPECT_NE(errors.find("came \"a bxxxx"), std::string::npos) << errors;
  EXPECT_LT(errors.size(), 200u);
}

TEST(ConfigReader, ReadsEveryKindOfValue) {
  const Config config = read_config(
      "run: {dir: runs/a b, seed: 18446744073709551615, precision: fp32}\n"
      "model: {d_model: +64, qk_norm: false, rope_theta: 5e5}\n"
      "moe: {layers: [1, 3]}\n"
      "router: {kind: mixtral, top_k: 3, capacity_factor: 2}\n"
      "data:\n"
      "  train:\n"
      "    - path: a\n"
      "    - {path: 'b # c', weight: .5}\n"
      "optim: {eps: 1e-4, schedule: {kind: wsd}}\n",
      "a.yaml");
  EXPECT_EQ(config.run.dir, "runs/a b");
  EXPECT_EQ(config.run.seed, 18446744073709551615u);
  EXPECT_EQ(config.run.precision, Precision::fp32);
  EXPECT_EQ(config.model.d_model, 64);
  EXPECT_FALSE(config.model.qk_norm);
  EXPECT_EQ(config.model.rope_theta, 5e5);
  EXPECT_EQ(config.moe.layers, (std::vector<std::int64_t>{1, 3}));
  EXPECT_EQ(config.moe.router.top_k, 3);
  EXPECT_EQ(config.moe.router.capacity_factor, 2);
  EXPECT_EQ(config.moe.router.balance_counts, BalanceCounts::all) << "as Mixtral has it";
  ASSERT_EQ(config.data.train.size(), 2u);
  EXPECT_EQ(config.data.train[0].path, "a");
  EXPECT_EQ(config.data.train[0].weight, 1);
  EXPECT_EQ(config.data.train[1].path, "b # c");
  EXPECT_EQ(config.data.train[1].weight, 0.5);
  EXPECT_EQ(config.optim.eps, 1e-4);
  EXPECT_EQ(config.optim.schedule.kind, ScheduleKind::wsd);
  EXPECT_EQ(config.optim.schedule.warmup_steps, ScheduleConfig{}.warmup_steps);
}

TEST(ConfigReader, AnOptimizerBringsItsPublishedValues) {
  const Config config =
      read_config("optim: {kind: adafactor, schedule: {hold_steps: 50}}\n", "a.yaml", {"optim.clip=2"});
  EXPECT_EQ(config.optim.kind, OptimKind::adafactor);
  EXPECT_EQ(config.optim.lr, 0.01);
  EXPECT_EQ(config.optim.beta1, 0);
  EXPECT_EQ(config.optim.eps, 1e-30);
  EXPECT_EQ(config.optim.clip, 2);
  EXPECT_EQ(config.optim.schedule.kind, ScheduleKind::inverse_sqrt);
  EXPECT_EQ(config.optim.schedule.warmup_steps, 0);
  EXPECT_EQ(config.optim.schedule.hold_steps, 50);
}

TEST(ConfigReader, OverridesWinOverTheFileAndLaterOnesOverEarlier) {
  const Config config = read_config(
      "model: {n_heads: 8}\noptim: {schedule: {kind: linear, warmup_steps: 7}}\n"
      "data: {train: [{path: x, weight: 3}]}\n",
      "a.yaml",
      {"model.n_heads=2", "model.n_heads=16", "optim.schedule.kind=wsd", "moe.layers=[1,3]",
       "data.train=[{path: a}, {path: b, weight: 2}]", "optim.lr=1e-4", "run={dir: here, seed: 5}",
       "run.dir=\"\\x41=b\""});
  EXPECT_EQ(config.model.n_heads, 16);
  EXPECT_EQ(config.optim.schedule.kind, ScheduleKind::wsd);
  EXPECT_EQ(config.optim.schedule.warmup_steps, 7);
  EXPECT_EQ(config.moe.layers, (std::vector<std::int64_t>{1, 3}));
  ASSERT_EQ(config.data.train.size(), 2u);
  EXPECT_EQ(config.data.train[0].weight, 1);  // of the list in the file nothing is left
  EXPECT_EQ(config.data.train[1].weight, 2);
  EXPECT_EQ(config.optim.lr, 1e-4);
  EXPECT_EQ(config.run.seed, 5u);
  EXPECT_EQ(config.run.dir, "A=b");
}

TEST(ConfigReader, WrongOverridesNameTheCommandLine) {
  const Wrong overrides[] = {
      {"model.n_heads", "command line: model.n_heads: wanted section.key=value"},
      {"=3", "command line: =3: wanted section.key=value"},
      {"model..n_heads=3", "command line: model..n_heads=3: wanted section.key=value"},
      {"a.b.c.d.e.f.g.h.i=3", "wanted section.key=value"},
      {"model.n_head=4", "command line: model.n_head=4: model.n_head: unknown key; did you mean n_heads?"},
      {"model.n_heads.x=4", "command line: model.n_heads.x=4: model.n_heads: wanted an integer from 1 to 4096"},
      {"n_heads=4", "command line: n_heads=4: n_heads: unknown key; belongs under model"},
      {"moe.layers=[1,", "command line: moe.layers=[1,: not YAML that can be read: end of sequence flow not found"},
      {"moe.layers=[1, 9]", "command line: moe.layers=[1, 9]: moe.layers[1]: no block 9"},
      {"data.train=[{weight: 2}]", "command line: data.train=[{weight: 2}]: data.train[0].path: is missing"},
      {"data.train.0.path=a", "data.train: wanted a list such as [{path: ..., weight: ...}], came a section"},
      {"run.dir=", "command line: run.dir=: run.dir: wanted text, came nothing"},
      {"model=4", "command line: model=4: model: wanted a section with its keys, came 4"},
      {"router.top_k=9", "command line: router.top_k=9: router.top_k: a token cannot go to 9 of 8 experts; nearest: 8"},
  };
  for (const Wrong& wrong : overrides) {
    const std::string errors = errors_of("model: {d_model: 64}\nmoe: {experts: 8}\n", {wrong.yaml});
    EXPECT_NE(errors.find(wrong.line), std::string::npos) << wrong.yaml << " gave: " << errors;
    EXPECT_EQ(errors.find("\n"), std::string::npos) << wrong.yaml << " gave: " << errors;
  }
}

TEST(ConfigReader, AnOverriddenListForgetsTheItemsBefore) {
  EXPECT_EQ(errors_of("data: {train: [{path: a}, {weight: 2}]}\n", {"data.train=[{path: b}]"}), "");
  EXPECT_EQ(errors_of("data: {train: [{path: a}]}\n", {"data.train=[{weight: 2}]"}),
            "command line: data.train=[{weight: 2}]: data.train[0].path: is missing");
}

TEST(ConfigReader, AnchorsAndAliasesUnfold) {
  const Config config =
      read_config("data:\n  train: &files [{path: &p corpus}]\n  valid: *files\nrun: {dir: *p}\n", "a");
  EXPECT_EQ(config.data.valid.at(0).path, "corpus");
  EXPECT_EQ(config.run.dir, "corpus");
}

TEST(ConfigReader, RefusesWhatIsTooLargeTooDeepOrUnfoldsToTooMuch) {
  EXPECT_EQ(errors_of(std::string((1 << 20) + 1, '#')), "a.yaml: larger than 1 MiB, which no configuration is");
  EXPECT_NE(errors_of(std::string(100'000, '[')).find("nested deeper than 32 levels"), std::string::npos);

  std::string bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n";  // 9 levels of 9 aliases: 3.9e8 values
  for (char level = 'b'; level < 'j'; ++level) {
    bomb += std::string(1, level) + ": &" + level + " [";
    for (int i = 0; i < 9; ++i) bomb += std::string(i ? ", *" : "*") + static_cast<char>(level - 1);
    bomb += "]\n";
  }
  EXPECT_NE(errors_of(bomb).find("more than 100000 values, with every alias unfolded"), std::string::npos);
}

// Whatever the text, the answer is a configuration that can be written and read again, or Error (Fault::usage).
TEST(ConfigReader, GarbageGivesAConfigurationOrAUsageError) {
  const std::vector<std::string> seeds{
      write_config(Config{}, Comments::yes),
      "# c\n---\nmodel: &m {d_model: 128, 'n_heads': 4, \"head_dim\": 32}\ndata:\n  train:\n  - {path: &p "
      "\"a\\x41\\n\", "
      "weight: 1.5e0}\n  - path: *p\n  - path: |\n      a\n      b\n  - ? path\n    : >-\n      x\n  valid: [ {path: "
      "'it''s'},\n   {path: b} ]\nmoe: {layers: [1, 3,\n 2]}\nrouter: {top_k: 2}\n",
      "router: {top_k: 1, renormalise: false}\n"};
  const std::vector<std::string> pieces{"[",
                                        "]",
                                        "{",
                                        "}",
                                        ": ",
                                        "\n",
                                        "  ",
                                        "- ",
                                        "? ",
                                        "&a ",
                                        "*a",
                                        "!!x ",
                                        "|",
                                        ">-\n",
                                        "\"",
                                        "'",
                                        "#",
                                        "\\",
                                        "\\u",
                                        "\t",
                                        "<<: ",
                                        "~",
                                        "null",
                                        "@",
                                        "`",
                                        ",",
                                        "\xC3\xA9",
                                        "%",
                                        "\r\n",
                                        "0",
                                        "-",
                                        "1",
                                        "1e999",
                                        "---\n",
                                        "...\n",
                                        "%YAML 1.2\n",
                                        "\xEF\xBB\xBF",
                                        "99999999999999999999",
                                        "true",
                                        "\xFF"};
  std::mt19937_64 random(7);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  int read = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string yaml = seeds[below(seeds.size())];
    if (yaml.size() > 400) yaml = yaml.substr(0, yaml.find('\n', below(600)) + 1);  // whole lines, to stay often legal
    for (std::size_t edits = below(6); edits > 0; --edits) {
      const std::size_t at = below(yaml.size() + 1);
      switch (below(4)) {
        case 0: yaml.insert(at, pieces[below(pieces.size())]); break;
        case 1: yaml.erase(at, below(12)); break;
        case 2: yaml.insert(at, yaml.substr(below(yaml.size() + 1), below(40))); break;
        default:
          if (at < yaml.size()) yaml[at] = static_cast<char>(yaml[at] ^ (1 << below(8)));
      }
    }
    const std::string value = yaml.substr(below(yaml.size() + 1), below(40));
    const std::vector<std::string> overrides =
        round % 3 == 0 ? std::vector<std::string>{"moe.layers=" + value} : std::vector<std::string>{};
    try {
      const Config config = read_config(yaml, "a.yaml", overrides);
      const std::string written = write_config(config);
      ASSERT_EQ(write_config(read_config(written, "written")), written) << yaml;
      ++read;
    } catch (const Error& error) {
      ASSERT_EQ(error.fault(), Fault::usage) << yaml;
      ASSERT_NE(std::string(error.what()), "");
    } catch (const std::exception& error) {
      FAIL() << error.what() << " from:\n" << yaml;
    }
  }
  EXPECT_GT(read, 100);  // enough of it is legal for the other path to be tried too
}

}  // namespace
}  // namespace switchyard
