#include "checkpoint/saver.h"

#include <algorithm>
#include <future>
#include <map>
#include <thread>

#include "checkpoint/disk.h"
#include "checkpoint_case.h"

namespace switchyard::test {
namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

std::map<std::string, std::string> contents(const fs::path& dir) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(dir))
    files[entry.path().filename()] = read_text(entry.path(), 1 << 24);
  return files;
}

Names names_in(const fs::path& dir) {
  Names names;
  for (const auto& entry : fs::directory_iterator(dir)) names.push_back(entry.path().filename());
  std::ranges::sort(names);
  return names;
}

std::vector<LogicalTensor> filled(Split split, int rank, std::int64_t step) {
  auto tensors = slices(split, rank);
  for (LogicalTensor& tensor : tensors) fill(tensor, step);
  return tensors;
}

TEST(Saver, BackgroundGivesTheSameBytes) {
  for (const Split split : {Split{1, 1}, {2, 2}, {4, 2}}) {
    const Scratch scratch;
    save(scratch / "a", 20, split);
    save(scratch / "b", 20, split, 3, {}, Mode::background);
    const auto a = contents(scratch / "a/step-00000020"), b = contents(scratch / "b/step-00000020");
    EXPECT_EQ(a.size(), static_cast<std::size_t>(split.world) + 3);
    EXPECT_TRUE(a == b) << split.world << " ranks";
    EXPECT_EQ(read_text(scratch / "a/latest", 200), read_text(scratch / "b/latest", 200));
  }
}

// A writer that waits until the test lets it go.
class Gate {
 public:
  SaveObserver observer() {
    return [open = opened_.get_future().share()](SaveStage stage) {
      if (stage == SaveStage::written) open.wait();
    };
  }
  void open() { opened_.set_value(); }

 private:
  std::promise<void> opened_;
};

TEST(Saver, TheRunGoesOnWhileItWrites) {
  const Scratch scratch;
  run_ranks(2, [&](ProcessGroup& world) {
    Gate gate;
    Saver saver({scratch / "run", 3, {}, gate.observer()}, world);
    EXPECT_EQ(saver.progress(), SaveProgress::written);
    saver.start(filled({2, 2}, world.rank(), 1), state_of(1));
    EXPECT_EQ(saver.progress(), SaveProgress::writing);
    world.barrier();
    EXPECT_EQ(names_in(scratch / "run"), Names{".tmp-step-00000001"});
    world.barrier();
    gate.open();
    while (saver.progress() == SaveProgress::writing) std::this_thread::yield();
    EXPECT_EQ(saver.progress(), SaveProgress::written);
    world.barrier();
    EXPECT_EQ(names_in(scratch / "run"), Names{".tmp-step-00000001"});  // until all ranks say so
    world.barrier();
    saver.finish();
    saver.finish();
    EXPECT_EQ(names_in(scratch / "run"), (Names{"latest", "step-00000001"}));
  });
  EXPECT_EQ(resume(scratch / "run"), 1);
}

TEST(Saver, TheNextSaveFinishesTheOneInFlight) {
  const Scratch scratch;
  run_ranks(2, [&](ProcessGroup& world) {
    Saver saver({.dir = scratch / "run", .keep = 2}, world);
    for (std::int64_t step : {1, 2, 3}) {
      saver.start(filled({2, 2}, world.rank(), step), state_of(step));
      EXPECT_EQ(fs::exists(scratch / "run" / text("step-0000000", step - 1)), step > 1);
    }
    saver.save(filled({2, 2}, world.rank(), 4), state_of(4));
  });
  EXPECT_EQ(names_in(scratch / "run"), (Names{"latest", "step-00000003", "step-00000004"}));
  EXPECT_EQ(resume(scratch / "run"), 4);
}

TEST(Saver, AFailureInTheBackgroundShowsInItsProgress) {
  const Scratch scratch;
  run_ranks(2, [&](ProcessGroup& world) {
    const auto fail = [&](SaveStage now) {
      if (now == SaveStage::written && world.rank() == 1) throw Error("the disk is gone", Fault::checkpoint);
    };
    Saver saver({scratch / "run", 3, {}, fail}, world);
    saver.start(filled({2, 2}, world.rank(), 1), state_of(1));
    while (saver.progress() == SaveProgress::writing) std::this_thread::yield();
    EXPECT_EQ(saver.progress(), world.rank() == 1 ? SaveProgress::failed : SaveProgress::written);
    EXPECT_EQ(refusal([&] { saver.finish(); }), "rank 1: the disk is gone");
  });
  EXPECT_EQ(names_in(scratch / "run"), Names{});
}

// As where an error elsewhere ends the run: the thread ends, nothing is published, and what was there stays.
TEST(Saver, GoesAwayInFlight) {
  const Scratch scratch;
  save(scratch / "run", 1, {1, 1});
  const auto self = make_self_group();
  for (const bool done : {false, true}) {
    Gate gate;
    {
      Saver saver({scratch / "run", 1, {}, gate.observer()}, *self);
      saver.start(filled({1, 1}, 0, 2), state_of(2));
      gate.open();
      while (done && saver.progress() == SaveProgress::writing) std::this_thread::yield();
    }
    EXPECT_EQ(names_in(scratch / "run"), (Names{"latest", "step-00000001"}));
  }
  EXPECT_EQ(resume(scratch / "run"), 1);
}

TEST(Saver, CopiesAreCountedAndTakenOnce) {
  const Scratch scratch;
  const auto self = make_self_group();
  const auto tensors = filled({1, 1}, 0, 1);
  std::int64_t bytes = 0;
  for (const LogicalTensor& tensor : tensors) bytes += static_cast<std::int64_t>(tensor.local.size_in_bytes());
  const auto held = [] { return memory_use({}).now[static_cast<std::size_t>(Memory::checkpoint)]; };
  {
    Saver saver({.dir = scratch / "run"}, *self);
    saver.reserve(tensors);
    const std::int64_t reserved = held();
    EXPECT_GE(reserved, bytes);
    for (std::int64_t step : {1, 2, 3}) {
      saver.start(tensors, state_of(step));
      EXPECT_EQ(held(), reserved);
      saver.finish();
    }
  }
  EXPECT_EQ(held(), 0);
}

// What is known to be damaged does not push out what is good, and goes when it is older than what is kept.
TEST(Saver, DamagedOnesDoNotCount) {
  const Scratch scratch;
  const fs::path run = scratch / "run";
  for (std::int64_t step : {1, 2, 3}) save(run, step, {1, 1}, 9);
  for (const char* step : {"step-00000002", "step-00000003"}) fs::resize_file(run / step / "rank-00000.h5", 100);
  const auto self = make_self_group();
  const auto found = find_checkpoint(run, *self);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->state.step, 1);
  EXPECT_EQ(found->damaged, (Names{"step-00000003", "step-00000002"}));

  Saver saver({run, 2, {found->damaged.begin(), found->damaged.end()}, {}}, *self);
  const auto save_step = [&](std::int64_t step) { saver.save(filled({1, 1}, 0, step), state_of(step)); };
  save_step(4);
  EXPECT_TRUE(fs::exists(run / "step-00000001"));
  save_step(3);  // replaces a damaged one: good from now on
  EXPECT_TRUE(fs::exists(run / "step-00000001"));
  save_step(5);
  EXPECT_FALSE(fs::exists(run / "step-00000001"));
  EXPECT_FALSE(fs::exists(run / "step-00000002"));
  EXPECT_FALSE(fs::exists(run / "step-00000003"));
  EXPECT_TRUE(fs::exists(run / "step-00000004"));
}

}  // namespace
}  // namespace switchyard::test
