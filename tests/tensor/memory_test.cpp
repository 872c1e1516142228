#include "tensor/memory.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <thread>
#include <vector>

#include "tensor/kernels.h"
#include "tensor/tensor.h"

namespace switchyard {
namespace {

constexpr Device kHost{};
constexpr auto kGradients = static_cast<std::size_t>(Memory::gradients);

TEST(MemoryAccount, CountsByKindNowAndAtTheWorstMoment) {
  reset_peak(kHost);
  const MemoryUse before = memory_use(kHost);
  {
    const Tensor a = Tensor::empty({256}, DType::f32, kHost, Memory::gradients);
    const Tensor view = a.rows(0, 1);  // a view costs nothing
    const Tensor b = Tensor::empty({512}, DType::f32, kHost, Memory::optimizer);
    const MemoryUse use = memory_use(kHost);
    EXPECT_EQ(use.now[kGradients] - before.now[kGradients], 1024);
    EXPECT_EQ(use.total_now - before.total_now, 1024 + 2048);
  }
  const MemoryUse after = memory_use(kHost);
  EXPECT_EQ(after.now, before.now);
  EXPECT_EQ(after.total_now, before.total_now);
  EXPECT_EQ(after.peak[kGradients], before.now[kGradients] + 1024);
  EXPECT_EQ(after.total_peak, before.total_now + 1024 + 2048);
  reset_peak(kHost);
  EXPECT_EQ(memory_use(kHost).total_peak, before.total_now);
}

TEST(MemoryCache, GivesTheSameBlockToTheNextTensorOfThatSize) {
  const void* first = nullptr;
  {
    const Tensor a = Tensor::empty({12'345}, DType::f32, kHost);
    first = a.bytes();
  }
  const MemoryUse before = memory_use(kHost);
  const Tensor b = Tensor::empty({12'340}, DType::f32, kHost);  // rounds up to the same size
  EXPECT_EQ(b.bytes(), first);
  EXPECT_EQ(memory_use(kHost).reserved, before.reserved);
  const Tensor c = Tensor::empty({12'345}, DType::f32, kHost);  // the block is taken: another one
  EXPECT_NE(c.bytes(), first);
}

TEST(MemoryCache, RoundsUpByAnEighthAtMost) {
  for (std::size_t bytes : {513u, 1000u, 1025u, 70'000u, 1'000'001u, 3'000'000u}) {
    const MemoryUse before = memory_use(kHost);
    std::byte* block = allocate(kHost, bytes, Memory::communication);
    const auto taken = static_cast<std::size_t>(memory_use(kHost).total_now - before.total_now);
    EXPECT_GE(taken, bytes);
    EXPECT_LE(taken, bytes + bytes / 8);
    release(kHost, block, bytes, Memory::communication);
  }
}

TEST(MemoryCache, ReleaseGivesIdleBlocksBack) {
  { const Tensor a = Tensor::empty({1 << 20}, DType::f32, kHost); }
  const MemoryUse before = memory_use(kHost);
  release_cache(kHost);
  const MemoryUse after = memory_use(kHost);
  EXPECT_LE(after.reserved, before.reserved - (4 << 20));
  EXPECT_EQ(after.reserved, after.total_now);
}

TEST(MemoryCache, BlocksAreAligned) {
  for (std::size_t bytes : {1u, 65u, 4096u, 100'000u})
    EXPECT_EQ(
        reinterpret_cast<std::uintptr_t>(Tensor::empty({static_cast<std::int64_t>(bytes)}, DType::u8, kHost).bytes()) %
            64,
        0u);
  for (std::int64_t bytes : {std::int64_t{2} << 20, (std::int64_t{5} << 20) + 1})  // whole huge pages
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(Tensor::empty({bytes}, DType::u8, kHost).bytes()) % (2u << 20), 0u);
}

TEST(MemoryCache, TellsWhatIsInUseWhenThereIsNoMore) {
  try {
    allocate(kHost, std::size_t{1} << 60, Memory::optimizer);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::memory);
    EXPECT_NE(std::string(error.what()).find("MiB more of optimizer; in use: parameters"), std::string::npos)
        << error.what();
  }
}

TEST(MemoryCache, ServesSeveralThreads) {
  const MemoryUse before = memory_use(kHost);
  std::vector<std::thread> threads;
  std::vector<int> damaged(4);
  for (int id = 0; id < 4; ++id)
    threads.emplace_back([id, &damaged] {
      for (int i = 0; i < 200; ++i) {
        Tensor t = Tensor::empty({64 + i % 7}, DType::i32, kHost);
        std::fill_n(t.data<std::int32_t>(), t.numel(), id);
        std::this_thread::yield();
        for (std::int64_t j = 0; j < t.numel(); ++j)
          damaged[static_cast<std::size_t>(id)] += t.data<std::int32_t>()[j] != id;
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(damaged, std::vector<int>(4));
  EXPECT_EQ(memory_use(kHost).total_now, before.total_now);
}

}  // namespace
}  // namespace switchyard
