#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <fstream>

#include "checkpoint/disk.h"
#include "checkpoint_case.h"

// HDF5 does not free what belongs to a file whose write failed; the run ends there. Read by LeakSanitizer alone.
extern "C" const char* __lsan_default_suppressions() { return "leak:libhdf5"; }

namespace switchyard::test {
namespace {

namespace fs = std::filesystem;

// Runs `body` in a process of its own, which it may end or cripple as it likes; its exit code.
template <class Body>
int in_child(Body body) {
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    body();
    std::exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

bool has_leftovers(const fs::path& dir) {
  for (const auto& entry : fs::directory_iterator(dir))
    if (entry.path().filename().string().starts_with('.')) return true;
  return false;
}

constexpr SaveStage kStages[] = {SaveStage::begun,     SaveStage::written, SaveStage::complete, SaveStage::set_aside,
                                 SaveStage::published, SaveStage::pointed, SaveStage::pruned};

// A process that dies at any moment of a save, of a new step or of one that is there already.
class Crash : public testing::TestWithParam<std::tuple<SaveStage, std::int64_t, Mode>> {};

TEST_P(Crash, LosesNothing) {
  const auto [stage, step, mode] = GetParam();
  const Scratch scratch;
  const fs::path run = scratch / "run";
  save(run, 1, {2, 2}, 1);
  ASSERT_EQ(in_child([&, stage = stage, step = step, mode = mode] {
              save(
                  run, step, {2, 2}, 1,
                  [&](SaveStage now) {
                    if (now == stage) ::_exit(9);
                  },
                  mode);
            }),
            9);
  const bool after = stage >= SaveStage::pointed || (step == 1 && stage >= SaveStage::published);
  EXPECT_EQ(resume(run), after ? step : 1);
  save(run, 3, {2, 2}, 1);
  EXPECT_EQ(resume(run), 3);
  EXPECT_FALSE(has_leftovers(run));
  EXPECT_EQ(std::distance(fs::directory_iterator(run), fs::directory_iterator()), 2);  // it, and `latest`
}

INSTANTIATE_TEST_SUITE_P(Everywhere, Crash,
                         testing::Combine(testing::ValuesIn(kStages), testing::Values(1, 2),
                                          testing::Values(Mode::blocking, Mode::background)));

// What stands aside while it is replaced counts like any other, and gets its name back.
TEST(Aside, CountsAndGetsItsNameBack) {
  const Scratch scratch;
  const fs::path run = scratch / "run";
  save(run, 1, {2, 2});
  fs::rename(run / "step-00000001", run / ".old-step-00000001");
  EXPECT_EQ(resume(run), 1);
  save(run, 2, {2, 2});
  EXPECT_TRUE(verify_checkpoint(run / "step-00000001").problems.empty());
  fs::copy(run / "step-00000001", run / ".old-step-00000002", fs::copy_options::recursive);
  fs::remove(run / "latest");
  EXPECT_EQ(resume(run), 2);
  save(run, 3, {2, 2});
  EXPECT_FALSE(has_leftovers(run));
}

// An error instead of a crash, on one rank: every rank gets it, the earlier checkpoint is still there, and the next
// save is none the worse.
TEST(SaveFailure, AtEveryStageIsEveryRanksError) {
  for (const Mode mode : {Mode::blocking, Mode::background})
    for (const SaveStage stage : kStages) {
      const Scratch scratch;
      save(scratch / "run", 1, {2, 2});
      run_ranks(2, [&](ProcessGroup& world) {
        auto tensors = slices({2, 2}, world.rank());
        std::atomic<bool> armed = true;
        const auto fail = [&](SaveStage now) {
          const bool here = world.rank() == (stage == SaveStage::written ? 1 : 0);
          if (here && now == stage && armed) throw Error("the disk is gone", Fault::checkpoint);
        };
        Saver saver({scratch / "run", 3, {}, fail}, world);
        const std::string why = refusal([&] {
          if (mode == Mode::blocking)
            saver.save(tensors, state_of(2));
          else
            saver.start(tensors, state_of(2)), saver.finish();
        });
        EXPECT_EQ(why, stage == SaveStage::written ? "rank 1: the disk is gone" : "the disk is gone");
        EXPECT_EQ(saver.progress(), SaveProgress::written);
        world.barrier();
        EXPECT_TRUE(verify_checkpoint(scratch / "run/step-00000001").problems.empty());
        EXPECT_EQ(has_leftovers(scratch / "run"), false);
        world.barrier();
        armed = false;
        for (LogicalTensor& tensor : tensors) fill(tensor, 3);
        saver.start(tensors, state_of(3));
        saver.finish();
      });
      EXPECT_EQ(resume(scratch / "run"), 3);
    }
}

// Writes that fail at any byte of any file, as on a full disk: here by the limit on a file's size, which needs no
// file system of its own.
TEST(SaveFailure, WritesThatFailAnywhere) {
  for (const int limit : {0, 1, 100, 800, 2000, 3000, 4000, 5000, 6000, 7000}) {
    SCOPED_TRACE(limit);
    const Scratch scratch;
    const fs::path run = scratch / "run";
    save(run, 1, {2, 2});
    EXPECT_EQ(in_child([&] {
                ::signal(SIGXFSZ, SIG_IGN);
                const rlimit small{static_cast<rlim_t>(limit), RLIM_INFINITY};
                ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
                run_ranks(2, [&](ProcessGroup& world) {
                  auto tensors = slices({2, 2}, world.rank());
                  Saver saver({.dir = run}, world);
                  for (int background = 0; background < 2; ++background) {
                    const std::string why = refusal([&] {
                      if (background)
                        saver.start(tensors, state_of(2)), saver.finish();
                      else
                        saver.save(tensors, state_of(2));
                    });
                    EXPECT_NE(why.find("File too large"), std::string::npos) << why;
                  }
                });
              }),
              0);
    EXPECT_FALSE(has_leftovers(run));
    EXPECT_EQ(resume(run), 1);
  }
}

TEST(SaveFailure, NotEnoughSpaceIsSaidBeforeWriting) {
  const Scratch scratch;
  const std::string why = refusal([&] { require_space(scratch / "", std::int64_t{1} << 62); });
  EXPECT_NE(why.find("no space for a checkpoint: it needs 4.61169e+12 MB and "), std::string::npos) << why;
  require_space(scratch / "", 1);
}

TEST(SaveFailure, ADirectoryThatIsAFile) {
  const Scratch scratch;
  std::ofstream(scratch / "run") << "x";
  run_ranks(2, [&](ProcessGroup& world) {
    const auto tensors = slices({2, 2}, world.rank());
    EXPECT_NE(refusal([&] { save_checkpoint(scratch / "run", tensors, state_of(2), world, 3); }), "");
    EXPECT_NE(refusal([&] { save_checkpoint(scratch / "run" / "deeper", tensors, state_of(2), world, 3); }), "");
  });
}

}  // namespace
}  // namespace switchyard::test
