#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>

#include "dist/mesh.h"
#include "grad_check.h"

namespace switchyard {
namespace {

std::string failure_of(int size, const std::function<void(ProcessGroup&)>& body) {
  try {
    run_ranks(size, body);
  } catch (const std::exception& error) {
    return error.what();
  }
  return "no failure";
}

TEST(ThreadGroup, BarrierWaitsForEveryRank) {
  std::atomic<int> came = 0;
  run_ranks(4, [&](ProcessGroup& world) {
    for (int round = 1; round <= 50; ++round) {
      ++came;
      world.barrier();
      EXPECT_EQ(came, 4 * round);
      world.barrier();
    }
  });
}

TEST(ThreadGroup, AFailingRankStopsTheOthersAndIsTheOneReported) {
  const auto what = failure_of(3, [](ProcessGroup& world) {
    world.barrier();
    if (world.rank() == 1) throw Error("the real reason");
    world.barrier();
  });
  EXPECT_EQ(what, "the real reason");
}

TEST(ThreadGroup, AFailureReachesRanksInEveryGroup) {
  for (int failing = 0; failing < 4; ++failing) {
    const auto what = failure_of(4, [&](ProcessGroup& world) {
      const Mesh mesh({.expert = 2}, world);
      Tensor x = test::random({64}, 1);
      mesh.experts->all_reduce(x, Reduce::sum);
      if (world.rank() == failing) throw std::runtime_error("not even an Error");
      while (true) (x.numel() % 2 ? mesh.expert_data : mesh.experts)->all_reduce(x, Reduce::sum);
    });
    EXPECT_EQ(what, "not even an Error");
  }
}

TEST(ThreadGroup, ARankThatEndsEarlyIsNamed) {
  const auto what = failure_of(3, [](ProcessGroup& world) {
    Tensor x = test::random({2, 3}, 1);
    if (world.rank() == 2) return;
    world.all_reduce(x, Reduce::max);
  });
  EXPECT_EQ(what,
            "every rank waits for one that will not come: rank 0 waits in all_reduce(max) of f32 (2, 3), "
            "rank 1 waits in all_reduce(max) of f32 (2, 3), rank 2 has ended");
}

TEST(ThreadGroup, RanksThatWaitForEachOtherAreNamed) {
  const auto what = failure_of(2, [](ProcessGroup& world) {
    const auto twin = world.split(0);
    (world.rank() == 0 ? *twin : world).barrier();
  });
  EXPECT_EQ(what, "every rank waits for one that will not come: rank 0 waits in barrier, rank 1 waits in barrier");
}

// Every rank gets the same error, and the group works on.
TEST(ThreadGroup, CallsThatDoNotFitAreNamedOnEveryRank) {
  const auto expect_error = [](const std::string& wanted, const std::function<void()>& call) {
    try {
      call();
      ADD_FAILURE() << "no error: " << wanted;
    } catch (const Error& error) {
      EXPECT_EQ(error.what(), wanted);
      EXPECT_EQ(error.fault(), Fault::communication);
    }
  };
  run_ranks(3, [&](ProcessGroup& world) {
    Tensor x = test::random({2, world.rank() == 1 ? 5 : 4}, 1);
    expect_error("rank 0 calls all_reduce(sum) of f32 (2, 4), rank 1 calls all_reduce(sum) of f32 (2, 5)",
                 [&] { world.all_reduce(x, Reduce::sum); });
    expect_error("rank 0 calls barrier, rank 2 calls broadcast(root 1) of i32 (1)", [&] {
      Tensor one = test::ints({1}, {1});
      if (world.rank() == 2)
        world.broadcast(one, 1);
      else
        world.barrier();
    });
    expect_error("all_to_all: rank 0 sends 2 rows to rank 1, which expects 1", [&] {
      const std::vector<int> send{1, world.rank() == 0 ? 2 : 1, 1};
      const Tensor in = Tensor::zeros({world.rank() == 0 ? 4 : 3, 2}, DType::f32, Device{});
      Tensor out = Tensor::empty({3, 2}, DType::f32, Device{});
      world.all_to_all(out, std::vector{1, 1, 1}, in, send);
    });
    world.barrier();
  });
}

TEST(ThreadGroup, NeedsARank) {
  EXPECT_THROW(run_ranks(0, [](ProcessGroup&) {}), Error);
}

}  // namespace
}  // namespace switchyard
