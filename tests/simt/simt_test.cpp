// The machine's own tests: one mistake of each kind is planted in a small kernel, and must be found. Here those of
// threads; guarded_test.cpp has those of memory.
#include <set>
#include <thread>

#include "simt/planted.h"
#include "simt/shared.h"

namespace switchyard::test {
namespace {

using namespace cuda;

constexpr int kWarps = 3, kThreads = kWarps * kWarpSize;

// How many different results the schedules lead to.
std::size_t outcomes(const std::function<Tensor()>& result) {
  std::set<std::vector<std::int32_t>> all;
  on_each_schedule([&] { all.insert(values(result())); });
  return all.size();
}

// Where each thread is.
__global__ void places_kernel(int* out) {
  const int block = int(blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z));
  const int threads = int(blockDim.x * blockDim.y * blockDim.z);
  out[block * threads + thread_in_block()] = 100 * block + thread_in_block();
}

TEST(Simt, EveryThreadOfEveryBlockRunsOnce) {
  on_each_schedule([] {
    Tensor out = on_gpu({2 * 3 * 2, 5 * 4 * 3});
    run("places", places_kernel, dim3(2, 3, 2), dim3(5, 4, 3), 0, ptr<int>(out));
    const auto found = values(out);
    for (int i = 0; i < 12 * 60; ++i) ASSERT_EQ(found[std::size_t(i)], 100 * (i / 60) + i % 60);
  });
}

// ---- Races: the schedules disagree.

enum class Race { none, read_early, write_early };

// Threads pass numbers on to their neighbours in the next warp; a mistake leaves out the barrier before or after.
__global__ void pass_on_kernel(int* out, Race race) {
  SharedMemory shared;
  const Shared<int> passed = shared.take<int>(kThreads);
  const int t = int(threadIdx.x), neighbour = (t + kWarpSize) % kThreads;
  int sum = 0;
  for (int round = 1; round <= 2; ++round) {
    passed[t] = t * round;
    if (race != Race::read_early) __syncthreads();
    sum += passed[neighbour];
    if (race != Race::write_early) __syncthreads();
  }
  out[t] = sum;
}

TEST(Simt, AMissingBarrierMakesSchedulesDisagree) {
  const auto result = [](Race race) {
    return outcomes([race] {
      Tensor out = on_gpu({kThreads});
      run("pass_on", pass_on_kernel, 1, kThreads, shared_bytes_of<int>(kThreads), ptr<int>(out), race);
      return out;
    });
  };
  EXPECT_EQ(result(Race::none), 1u);
  EXPECT_GT(result(Race::read_early), 1u);
  EXPECT_GT(result(Race::write_early), 1u);
}

__global__ void pass_on_in_warp_kernel(int* out, bool sync) {
  SharedMemory shared;
  const Shared<int> passed = shared.take<int>(kWarpSize);
  passed[lane_id()] = lane_id();
  if (sync) __syncwarp();
  out[lane_id()] = passed[(lane_id() + 1) % kWarpSize];
}

TEST(Simt, AMissingWarpBarrierMakesSchedulesDisagree) {
  const auto result = [](bool sync) {
    return outcomes([sync] {
      Tensor out = on_gpu({kWarpSize});
      run("in_warp", pass_on_in_warp_kernel, 1, kWarpSize, shared_bytes_of<int>(kWarpSize), ptr<int>(out), sync);
      return out;
    });
  };
  EXPECT_EQ(result(true), 1u);
  EXPECT_GT(result(false), 1u);
}

// Each block takes what the block before left: right only if blocks came in order.
__global__ void chain_kernel(int* out) { out[blockIdx.x + 1] = out[blockIdx.x] + 1; }

TEST(Simt, BlocksThatWaitForEachOtherMakeSchedulesDisagree) {
  EXPECT_GT(outcomes([] {
              Tensor out = Tensor::zeros({9}, DType::i32, kGpu);
              run("chain", chain_kernel, 8, 1, 0, ptr<int>(out));
              return out;
            }),
            1u);
}

// Which thread counts first, and how many others of other warps came between two of a warp.
__global__ void order_kernel(int* order, int* next) {
  for (int round = 0; round < 4; ++round) {
    order[atomicAdd(next, 1)] = int(threadIdx.x);
    __syncwarp();
  }
}

TEST(Simt, SchedulesOrderThreadsAsTheySay) {
  std::vector<std::vector<std::int32_t>> orders;
  for (unsigned seed : {0u, 1u, 7u, 7u, 8u}) {
    simt::set_schedule(seed);
    Tensor order = on_gpu({4 * kThreads}), next = Tensor::zeros({1}, DType::i32, kGpu);
    run("order", order_kernel, 1, kThreads, 0, ptr<int>(order), ptr<int>(next));
    orders.push_back(values(order));
  }
  simt::set_schedule(0);
  for (int i = 0; i < 4 * kThreads; ++i) {
    const int warp = i / (4 * kWarpSize), lane = i % kWarpSize;
    ASSERT_EQ(orders[0][std::size_t(i)], warp * kWarpSize + lane);
    ASSERT_EQ(orders[1][std::size_t(i)], kThreads - 1 - (warp * kWarpSize + lane));
  }
  EXPECT_EQ(orders[2], orders[3]);
  EXPECT_NE(orders[2], orders[4]);
  std::set<std::int32_t> early_warps;
  for (int i = 0; i < kWarpSize; ++i) early_warps.insert(orders[2][std::size_t(i)] / kWarpSize);
  EXPECT_EQ(early_warps.size(), std::size_t(kWarps));
}

// ---- Threads that never meet.

__global__ void early_return_kernel() {
  if (threadIdx.x >= kWarpSize) return;
  __syncthreads();
}
__global__ void two_barriers_kernel() {
  if (threadIdx.x < 5)
    __syncthreads();
  else
    __syncthreads();
}
__global__ void unequal_rounds_kernel() {
  for (unsigned i = 0; i < 1 + threadIdx.x % 2; ++i) __syncthreads();
}
__global__ void barrier_and_shuffle_kernel(int* out) {
  if (threadIdx.x == 7)
    __syncthreads();
  else
    *out = __shfl_sync(kAllLanes, 1, 0);
}

TEST(Simt, DivergentBarriersAreErrors) {
  Tensor out = on_gpu({1});
  on_each_schedule([&] {
    expect_error([] { run("early_return", early_return_kernel, 2, kThreads, 0); },
                 {"early_return, block (", "32 threads at __syncthreads (simt_test.cpp:", ", (0, 0, 0) the first",
                  "64 threads returned, (32, 0, 0) the first", "never meet"});
    expect_error(
        [] { run("two_barriers", two_barriers_kernel, 1, kThreads, 0); },
        {"two_barriers, block (0, 0, 0): 5 threads at", "91 threads at", "(5, 0, 0) the first", "different places"});
    expect_error([] { run("unequal_rounds", unequal_rounds_kernel, 1, kThreads, 0); },
                 {"unequal_rounds", "48 threads at __syncthreads", "48 threads returned", "never meet"});
    expect_error(
        [&] { run("mixed", barrier_and_shuffle_kernel, 1, kWarpSize, 0, ptr<int>(out)); },
        {"mixed", "1 thread at __syncthreads", "31 threads in a warp exchange of lanes 0xffffffff", "never meet"});
  });
}

enum class Lanes { all, some_return, foreign, other_mask, other_place, missing };

__global__ void shuffle_kernel(int* out, Lanes lanes) {
  const int lane = lane_id();
  int got = 0;
  switch (lanes) {
    case Lanes::all:
    case Lanes::missing: got = __shfl_sync(kAllLanes, lane, 3); break;
    case Lanes::some_return:
      if (lane < 20) got = __shfl_xor_sync(kAllLanes, lane, 1);
      break;
    case Lanes::foreign: got = __shfl_sync(0x0000ffffu, lane, 3); break;
    case Lanes::other_mask: got = __shfl_sync(lane < 16 ? kAllLanes : 0xffff0000u, lane, 3); break;
    case Lanes::other_place:
      if (lane < 16)
        got = __shfl_sync(kAllLanes, lane, 3);
      else
        got = __shfl_sync(kAllLanes, lane, 3);
      break;
  }
  out[threadIdx.x] = got;
}

TEST(Simt, ShufflesThatSomeLanesNeverReachAreErrors) {
  Tensor out = on_gpu({kThreads});
  const auto shuffle = [&](Lanes lanes, int threads = kThreads) {
    return [&out, lanes, threads] { run("shuffle", shuffle_kernel, 1, threads, 0, ptr<int>(out), lanes); };
  };
  on_each_schedule([&] {
    EXPECT_EQ(error_of(shuffle(Lanes::all)), "");
    expect_error(shuffle(Lanes::some_return),
                 {"shuffle, block (0, 0, 0): ", "60 threads in a warp exchange of lanes 0xffffffff (simt_test.cpp:",
                  "36 threads returned", "never meet"});
    expect_error(shuffle(Lanes::foreign), {"shuffle, block (0, 0, 0), thread (", "is not in its own mask 0x0000ffff"});
    expect_error(shuffle(Lanes::other_mask, kWarpSize),
                 {"16 threads in a warp exchange of lanes 0xffffffff", "16 threads returned", "never meet"});
    expect_error(shuffle(Lanes::other_place, kWarpSize),
                 {"16 threads in a warp exchange", "(16, 0, 0) the first", "different places"});
    expect_error(shuffle(Lanes::missing, 40), {"8 threads in a warp exchange of lanes 0xffffffff", "never meet"});
  });
}

__global__ void part_of_warp_kernel(int* out) {
  const int lane = lane_id();
  if (lane < 7) out[lane] = __shfl_down_sync(0x7fu, lane * lane, 2);
  if (lane >= 7) out[lane] = int(__ballot_sync(~0x7fu, lane % 2));
}

TEST(Simt, PartsOfAWarpExchangeByThemselves) {
  EXPECT_EQ(outcomes([] {
              Tensor out = on_gpu({kWarpSize});
              run("parts", part_of_warp_kernel, 1, kWarpSize, 0, ptr<int>(out));
              const auto found = values(out);
              EXPECT_EQ(found[3], 25);
              EXPECT_EQ(unsigned(found[9]), 0xaaaaaa80u);
              return out;
            }),
            1u);
}

// ---- Kernels that fail, and what is left of the machine.

struct Counted {
  explicit Counted(int* alive) : alive(alive) { ++*alive; }
  ~Counted() { --*alive; }
  int* alive;
};

TEST(Simt, AKernelThatThrowsIsNamedAndTheNextOneRuns) {
  int alive = 0;
  const auto throws = [&](auto what) {
    return [&alive, what] {
      simt::run({"thrower", 4, kThreads, 0}, [&] {
        const Counted counted(&alive);
        __syncthreads();
        if (blockIdx.x == 2 && threadIdx.x == 40) throw what;
        __syncthreads();
      });
    };
  };
  on_each_schedule([&] {
    expect_error(throws(std::invalid_argument("no such thing")),
                 {"thrower, block (2, 0, 0), thread (40, 0, 0) threw: no such thing"});
    expect_error(throws(42), {"thrower, block (2, 0, 0), thread (40, 0, 0) threw something"});
    EXPECT_EQ(alive, 0);  // what waiting threads held is gone
    EXPECT_STREQ(simt::where(), "no kernel");
    Tensor out = on_gpu({1, 60});
    run("places", places_kernel, 1, dim3(5, 4, 3), 0, ptr<int>(out));
    EXPECT_EQ(values(out)[59], 59);
  });
}

TEST(Simt, LaunchesThatNoGpuWouldTakeAreErrors) {
  const auto with = [](dim3 block, std::size_t shared_bytes) {
    return [block, shared_bytes] { simt::run({"large", 1, block, shared_bytes}, [] {}); };
  };
  EXPECT_EQ(error_of(with(1024, simt::SharedPieces::kMostBytes)), "");
  expect_error(with(1025, 0), {"large: a block of 1025 threads"});
  expect_error(with(dim3(32, 33), 0), {"large: a block of 1056 threads"});
  expect_error(with(0, 0), {"large: a block of 0 threads"});
  expect_error(with(1, simt::SharedPieces::kMostBytes + 1), {"large: a block of 1 threads and 232449 bytes"});
  expect_error(
      [&] {
        simt::run({"outer", 1, 1, 0}, with(1, 0));
      },
      {"outer, block (0, 0, 0), thread (0, 0, 0) launches large"});
}

int overflow(int depth) {
  volatile char bytes[4096] = {};
  return depth == 0 ? bytes[0] : overflow(depth - 1) + bytes[1];
}

TEST(Simt, AStackOverflowIsNamed) {
  EXPECT_DEATH(simt::run({"deep", 1, 1, 0},
                         [] {
                           volatile int n = overflow(1000);
                           static_cast<void>(n);
                         }),
               "bad access in deep");
}

TEST(Simt, EachSystemThreadHasItsOwnMachine) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i)
    threads.emplace_back([] {
      for (int repeat = 0; repeat < 20; ++repeat) {
        Tensor out = on_gpu({kThreads});
        run("pass_on", pass_on_kernel, 1, kThreads, shared_bytes_of<int>(kThreads), ptr<int>(out), Race::none);
        const auto found = values(out);
        for (int t = 0; t < kThreads; ++t) ASSERT_EQ(found[std::size_t(t)], 3 * ((t + kWarpSize) % kThreads));
      }
    });
  for (std::thread& t : threads) t.join();
}

}  // namespace
}  // namespace switchyard::test
