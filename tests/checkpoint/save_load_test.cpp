#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>

#include "checkpoint/disk.h"
#include "checkpoint_case.h"

namespace switchyard::test {
namespace {

namespace fs = std::filesystem;

std::map<std::string, std::string> contents(const fs::path& dir) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(dir))
    files[entry.path().filename()] = read_text(entry.path(), 1 << 24);
  return files;
}

std::vector<std::string> names_in(const fs::path& dir) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(dir)) names.push_back(entry.path().filename());
  std::ranges::sort(names);
  return names;
}

using Names = std::vector<std::string>;

TEST(Checkpoint, EveryLayoutLoadsWhatEveryOtherSaved) {
  const Split splits[] = {{1, 1}, {2, 2}, {2, 1}, {4, 4}, {4, 2}};
  for (const Split from : splits) {
    const Scratch scratch;
    save(scratch / "run", 500, from);
    for (const Split to : splits) {
      SCOPED_TRACE(text(from.world, " ranks of ", from.ep, " to ", to.world, " of ", to.ep));
      run_ranks(to.world, [&](ProcessGroup& world) {
        const auto found = find_checkpoint(scratch / "run", world);
        ASSERT_TRUE(found);
        EXPECT_EQ(found->warnings, Names{});
        EXPECT_EQ(found->path, scratch / "run/step-00000500");
        EXPECT_EQ(found->state, state_of(500));
        auto tensors = slices(to, world.rank());
        EXPECT_EQ(load_checkpoint(found->path, tensors, world), state_of(500));
        expect_holds(tensors, 500);
      });
    }
  }
}

TEST(Checkpoint, SeveralSlicesOfOneTensorOnOneRank) {
  const Scratch scratch;
  const auto self = make_self_group();
  std::vector<LogicalTensor> parts;
  for (std::int64_t row : {2, 0, 1})
    parts.push_back({"w", Tensor::zeros({1, 5}, DType::f32, Device{}), {3, 5}, {row}, true});
  for (LogicalTensor& part : parts) fill(part, 1);
  save_checkpoint(scratch / "run", parts, state_of(1), *self, 1);
  std::vector<LogicalTensor> whole{{"w", Tensor::zeros({3, 5}, DType::f32, Device{}), {3, 5}, {}, true}};
  load_checkpoint(scratch / "run/step-00000001", whole, *self);
  expect_holds(whole, 1);
}

// As where layers are spread over ranks: nobody holds every name.
TEST(Checkpoint, RanksMayHoldDifferentTensors) {
  const Scratch scratch;
  run_ranks(2, [&](ProcessGroup& world) {
    const auto mine = [&](std::vector<LogicalTensor> all) {
      std::erase_if(all, [&, i = 0](const LogicalTensor&) mutable { return i++ % 2 != world.rank(); });
      return all;
    };
    auto tensors = mine(slices({1, 1}, 0));
    for (LogicalTensor& tensor : tensors) {
      fill(tensor, 4);
      tensor.writer = true;
    }
    save_checkpoint(scratch / "run", tensors, state_of(4), world, 1);
    auto loaded = mine(slices({1, 1}, 0));
    load_checkpoint(scratch / "run/step-00000004", loaded, world);
    expect_holds(loaded, 4);
  });
  EXPECT_EQ(resume(scratch / "run"), 4);
}

TEST(Checkpoint, SameStateSameBytes) {
  const Scratch scratch;
  save(scratch / "a", 20, {4, 2});
  ::sleep(1);  // HDF5's times have a resolution of one second
  save(scratch / "b", 20, {4, 2});
  const auto a = contents(scratch / "a/step-00000020"), b = contents(scratch / "b/step-00000020");
  EXPECT_EQ(a.size(), 7u);
  for (const auto& [name, bytes] : a) EXPECT_TRUE(b.contains(name) && b.at(name) == bytes) << name;
  EXPECT_EQ(read_text(scratch / "a/latest", 200), read_text(scratch / "b/latest", 200));
}

TEST(Checkpoint, KeepsTheNewest) {
  const Scratch scratch;
  for (std::int64_t step : {1, 2, 3, 4}) save(scratch / "run", step, {2, 2}, 2);
  EXPECT_EQ(names_in(scratch / "run"), (Names{"latest", "step-00000003", "step-00000004"}));
  save(scratch / "run", 5, {2, 2}, 1);
  EXPECT_EQ(names_in(scratch / "run"), (Names{"latest", "step-00000005"}));
  EXPECT_EQ(resume(scratch / "run"), 5);
}

TEST(Checkpoint, RewoundRunLeavesLaterOnesUntilItGetsThere) {
  const Scratch scratch;
  for (std::int64_t step : {10, 20, 30}) save(scratch / "run", step, {1, 1});
  std::ofstream(scratch / "run/latest") << "step-00000010\n";  // as a person would
  std::vector<std::string> warnings;
  EXPECT_EQ(resume(scratch / "run", &warnings), 10);
  EXPECT_EQ(warnings, Names{});
  save(scratch / "run", 15, {1, 1}, 1);
  EXPECT_EQ(names_in(scratch / "run"), (Names{"latest", "step-00000015", "step-00000020", "step-00000030"}));
  EXPECT_EQ(resume(scratch / "run"), 15);
}

TEST(Checkpoint, SavingAStepAgainReplacesIt) {
  const Scratch scratch;
  save(scratch / "run", 7, {4, 4});
  const auto before = contents(scratch / "run/step-00000007");
  save(scratch / "run", 7, {1, 1});
  EXPECT_NE(contents(scratch / "run/step-00000007"), before);
  EXPECT_EQ(names_in(scratch / "run"), (Names{"latest", "step-00000007"}));
  EXPECT_EQ(resume(scratch / "run"), 7);
}

TEST(Checkpoint, NothingThereIsNoError) {
  const Scratch scratch;
  EXPECT_EQ(resume(scratch / "run"), 0);
  fs::create_directory(scratch / "run");
  EXPECT_EQ(resume(scratch / "run"), 0);
}

TEST(Checkpoint, AModelThatDoesNotFitIsToldHow) {
  const Scratch scratch;
  save(scratch / "run", 3, {2, 2});
  run_ranks(2, [&](ProcessGroup& world) {
    auto tensors = slices({2, 2}, world.rank());
    tensors[0].name = "model.tok_embeddings.weight";
    tensors[1].local = Tensor::zeros({6}, DType::f32, Device{});
    tensors[1].global_shape = {6};
    tensors.back().local = Tensor::zeros({9}, DType::u16, Device{});
    const std::string why = refusal([&] { load_checkpoint(scratch / "run/step-00000003", tensors, world); });
    for (const char* part :
         {"1 missing: model.tok_embeddings.weight;", "1 not of this model: model.embed_tokens.weight;",
          "2 of another shape or type: model.norm.weight is f32 (5), wanted f32 (6), counts.u8 is u8 (9), wanted u16"})
      EXPECT_NE(why.find(part), std::string::npos) << why;
  });
}

TEST(Checkpoint, LongListsAreCut) {
  const Scratch scratch;
  save(scratch / "run", 3, {1, 1});
  const auto self = make_self_group();
  std::vector<LogicalTensor> none;
  const std::string why = refusal([&] { load_checkpoint(scratch / "run/step-00000003", none, *self); });
  EXPECT_NE(why.find("15 not of this model: counts.i32, counts.i64, counts.u8, model.both_axes, "
                     "model.embed_tokens.weight, …"),
            std::string::npos)
      << why;
}

TEST(Checkpoint, EvaluationReadsOnlyParameters) {
  const Scratch scratch;
  save(scratch / "run", 3, {4, 2});
  run_ranks(2, [&](ProcessGroup& world) {
    auto tensors = slices({2, 2}, world.rank());
    tensors.resize(4);  // those of "model."
    load_checkpoint(scratch / "run/step-00000003", tensors, world, Unread::allow);
    expect_holds(tensors, 3);
  });
}

TEST(Checkpoint, OneRanksMistakeIsEveryRanksError) {
  const Scratch scratch;
  run_ranks(4, [&](ProcessGroup& world) {
    auto tensors = slices({4, 4}, world.rank());
    if (world.rank() == 2) tensors[0].name = "../escape";
    try {
      save_checkpoint(scratch / "run", tensors, state_of(1), world, 1);
      ADD_FAILURE() << "nothing was refused";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("rank 2: "), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("'../escape'"), std::string::npos) << error.what();
    }
  });
}

TEST(Checkpoint, SlicesThatDoNotMakeAWholeAreRefused) {
  const Scratch scratch;
  const auto attempt = [&](auto change) {
    run_ranks(2, [&](ProcessGroup& world) {
      auto tensors = slices({2, 2}, world.rank());
      change(tensors, world.rank());
      const std::string why = refusal([&] { save_checkpoint(scratch / "run", tensors, state_of(1), world, 1); });
      EXPECT_NE(why.find("model."), std::string::npos) << why;
    });
    EXPECT_EQ(names_in(scratch / "run"), Names{});
  };
  attempt([](auto& tensors, int) { tensors[0].writer = false; });
  attempt([](auto& tensors, int) { tensors[0].writer = true; });
  attempt([](auto& tensors, int rank) { tensors[2].origin[0] += rank; });
}

// A column of what a shell command prints about the checkpoint, from any working directory.
std::string output_of(const std::string& command) {
  std::string output;
  FILE* pipe = ::popen(command.c_str(), "r");
  char block[4096];
  while (const std::size_t n = std::fread(block, 1, sizeof block, pipe)) output.append(block, n);
  EXPECT_EQ(::pclose(pipe), 0) << command << ": " << output;
  return output;
}

// checkpoint.h5 shows whole tensors to tools that know nothing of us, also after the directory was moved.
TEST(Checkpoint, OtherToolsReadItWhole) {
  const Scratch scratch;
  save(scratch / "run", 9, {4, 4});
  fs::rename(scratch / "run/step-00000009", scratch / "moved");
  const std::string at = (scratch / "moved").string();
  EXPECT_NE(output_of("cd " + at + " && sha256sum -c SHA256SUMS").find("manifest.json: OK"), std::string::npos);

  LogicalTensor counts{"counts.i64", Tensor::zeros({3}, DType::i64, Device{}), {3}, {}, true};
  fill(counts, 9);
  const std::int64_t* n = counts.local.data<std::int64_t>();
  const std::string dump = output_of("cd / && h5dump -d /tensors/counts.i64 " + at + "/checkpoint.h5");
  EXPECT_NE(dump.find(text("(0): ", n[0], ", ", n[1], ", ", n[2])), std::string::npos) << dump;

  // every tensor's bytes, in order of names, through virtual datasets
  std::vector<LogicalTensor> whole = slices({}, 0);
  std::ranges::sort(whole, {}, &LogicalTensor::name);
  std::string expected;
  for (LogicalTensor& tensor : whole) {
    fill(tensor, 9);
    expected.append(reinterpret_cast<const char*>(tensor.local.bytes()), tensor.local.size_in_bytes());
  }
  const std::string bytes = output_of(
      "cd / && /usr/bin/python3 -c 'import h5py, sys\n"
      "t = h5py.File(sys.argv[1] + \"/checkpoint.h5\", \"r\")[\"tensors\"]\n"
      "[sys.stdout.buffer.write(t[n][...].tobytes()) for n in sorted(t)]\n"
      "e = h5py.File(sys.argv[1] + \"/rank-00003.h5\", \"r\")[\"tensors/model.layers.1.mlp.experts.gate_up_proj\"]\n"
      "assert list(e.attrs[\"global_shape\"]) == [16, 6, 4] and list(e.attrs[\"origin\"]) == [8, 0, 0], "
      "dict(e.attrs)'" +
      (" " + at));
  EXPECT_EQ(bytes == expected, true) << bytes.size() << " bytes, expected " << expected.size();
}

}  // namespace
}  // namespace switchyard::test
