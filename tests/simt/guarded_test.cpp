// The machine's own tests: one mistake of each kind is planted in a small kernel, and must be found. Here those of
// memory; simt_test.cpp has those of threads.
#include "simt/guarded.h"

#include <gtest/gtest-spi.h>

#include "simt/planted.h"

namespace switchyard::test {
namespace {

using namespace cuda;

// ---- Shared memory.

__global__ void shared_index_kernel(int index) {
  SharedMemory shared;
  const Shared<float> piece = shared.take<float>(10);
  if (threadIdx.x == 5) piece[index] = 0;
}

TEST(Simt, AnIndexOutsideSharedMemoryIsNamed) {
  for (const auto& [index, text] : {std::pair{10, "10 outside 10"}, {-1, "-1 outside 10"}})
    expect_error([i = index] { run("shared_index", shared_index_kernel, 2, 32, 64, i); },
                 {"shared_index, block (0, 0, 0), thread (5, 0, 0)", "shared memory", text});
  EXPECT_EQ(error_of([] { run("shared_index", shared_index_kernel, 2, 32, 64, 9); }), "");
}

TEST(Simt, MoreSharedMemoryThanTheLaunchGaveIsNamed) {
  expect_error([] { run("greedy", shared_index_kernel, 1, 32, 32, 0); },
               {"greedy, block", "shared bytes: 40 outside 32"});
}

// Past the checks of Shared, as 16-byte accesses go.
__global__ void shared_pointer_kernel(int index, bool write, float* out) {
  SharedMemory shared;
  const Shared<float> before = shared.take<float>(6), piece = shared.take<float>(6), after = shared.take<float>(64);
  before[0] = piece[0] = after[0] = 1;
  if (write)
    piece.data[index] = 1;
  else
    *out = piece.data[index];
}

TEST(Simt, PiecesOfSharedMemoryDoNotTouch) {
  Tensor out = on_gpu({1}, DType::f32);
  const auto at = [&](int index, bool write) {
    run("pointer", shared_pointer_kernel, 1, 1, 512, index, write, ptr<float>(out));
    return static_cast<double>(to_device(out, Device{}).data<float>()[0]);
  };
  EXPECT_EQ(at(0, false), 1);
  for (int outside : {-1, -16, 6, 7}) {
    EXPECT_TRUE(std::isnan(at(outside, false))) << outside;
    expect_error([&] { at(outside, true); },
                 {"pointer, block (0, 0, 0) wrote ", outside < 0 ? "before" : "past", "piece 1 of 24 bytes"});
  }
  EXPECT_DEATH(at(8, false), "bad access in pointer, block \\(0, 0, 0\\), thread \\(0, 0, 0\\)");
  EXPECT_DEATH(at(8, true), "bad access in pointer");
}

__global__ void stale_shared_kernel(float* out) {
  SharedMemory shared;
  const Shared<float> piece = shared.take<float>(4);
  out[blockIdx.x] = piece[1];
  piece[1] = 1;
}

TEST(Simt, SharedMemoryOfABlockBeforeIsNotSeen) {
  Tensor out = on_gpu({3}, DType::f32);
  for (int launch = 0; launch < 2; ++launch) {
    run("stale", stale_shared_kernel, 3, 1, 16, ptr<float>(out));
    const Tensor host = to_device(out, Device{});
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(std::isnan(host.data<float>()[i]));
  }
}

// ---- Device memory.

template <class T>
__global__ void touch_kernel(T* p, std::int64_t index, bool write, T* out) {
  if (threadIdx.x != 3) return;
  if (write)
    p[index] = T(1.0f);
  else
    *out = p[index];
}

template <class T>
T touch(Tensor& t, std::int64_t index, bool write) {
  Tensor out = Tensor::empty({1}, t.dtype(), kGpu);
  run("touch", touch_kernel<T>, dim3(1), dim3(4), 0, ptr<T>(t), index, write, ptr<T>(out));
  const Tensor host = to_device(out, Device{});
  return *ptr<T>(host);
}

TEST(Simt, DeviceMemoryEndsAtAForbiddenPage) {
  Tensor t = on_gpu({8}, DType::f32);
  for (bool write : {false, true}) {
    touch<float>(t, 0, write);
    touch<float>(t, 7, write);
    EXPECT_DEATH(touch<float>(t, 8, write),
                 "bad access in touch, block \\(0, 0, 0\\), thread \\(3, 0, 0\\): 32 bytes from the beginning of a "
                 "block of 32 bytes");
    EXPECT_DEATH(touch<float>(t, 1000, write), "bad access in touch");
    EXPECT_DEATH(touch<float>(t, -5000, write), "bad access in touch");
  }
}

TEST(Simt, TheBytesThatNoPageGuardsAreWatched) {
  Tensor f32 = on_gpu({5}, DType::f32), bf16 = on_gpu({3}, DType::bf16);
  for (std::int64_t index : {5, 7, -1, -16}) {
    EXPECT_TRUE(std::isnan(touch<float>(f32, index, false))) << index;
    expect_error([&] { touch<float>(f32, index, true); },
                 {"touch wrote", index < 0 ? "before" : "past", "a block of 20 bytes"});
  }
  for (std::int64_t index : {3, 7, -1}) {
    EXPECT_TRUE(std::isnan(float(touch<__nv_bfloat16>(bf16, index, false))));
    expect_error([&] { touch<__nv_bfloat16>(bf16, index, true); }, {"touch wrote", "a block of 6 bytes"});
  }
  EXPECT_EQ(error_of([&] { touch<float>(f32, 4, true); }), "");  // told once
}

TEST(Simt, WhatWasWrittenOutsideByOthersStopsTheProgramOnRelease) {
  const auto overrun = [] {
    Tensor t = on_gpu({5}, DType::f32);
    const simt::DeviceAccess access;
    t.data<float>()[5] = 1;
  };
  EXPECT_DEATH(overrun(), "something wrote past a block");
}

TEST(Simt, FreedMemoryIsForbidden) {
  const float* p = nullptr;
  {
    const Tensor t = on_gpu({8}, DType::f32);
    p = ptr<float>(t);
  }
  for (int i = 0; i < 100; ++i) on_gpu({8}, DType::f32);  // its place is not taken soon
  Tensor out = on_gpu({1}, DType::f32);
  EXPECT_DEATH(simt::run({"after_free", 1, 1, 0}, [&] { *ptr<float>(out) = *p; }),
               "bad access in after_free, block \\(0, 0, 0\\), thread \\(0, 0, 0\\): memory that was freed");
  expect_error(
      [&] {
        run("after_free", touch_kernel<float>, dim3(1), dim3(4), 0, const_cast<float*>(p), std::int64_t{0}, false,
            ptr<float>(out));
      },
      {"after_free is given a pointer that is not into device memory"});
  EXPECT_DEATH(simt::give(p), "memory is released that is not there");
}

TEST(Simt, HostAndDeviceKeepToTheirMemory) {
  Tensor out = on_gpu({1}, DType::f32), host = Tensor::zeros({4}, DType::f32, Device{});
  expect_error(
      [&] {
        run("to_host", touch_kernel<float>, dim3(1), dim3(4), 0, ptr<float>(host), std::int64_t{0}, false,
            ptr<float>(out));
      },
      {"to_host is given a pointer that is not into device memory"});
  run("null", touch_kernel<float>, dim3(1), dim3(1), 0, static_cast<float*>(nullptr), std::int64_t{0}, false,
      ptr<float>(out));

  const auto copy = [](void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
    return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  };
  EXPECT_EQ(copy(out.bytes(), host.bytes(), 4, cudaMemcpyHostToDevice), cudaSuccess);
  EXPECT_EQ(copy(out.bytes(), host.bytes(), 8, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(copy(out.bytes(), host.bytes(), 4, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
  EXPECT_EQ(copy(out.bytes(), host.bytes(), 4, cudaMemcpyDeviceToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemsetAsync(out.bytes(), 0, 5, nullptr), cudaErrorInvalidValue);

  if (!simt::host_is_kept_out()) GTEST_SKIP() << "the processor has no protection keys";
  EXPECT_DEATH(out.data<float>()[0] = 1, "bad access in no kernel: the host touches device memory");
}

// ---- What nobody wrote reaches the result.

enum class Unwritten { none, global, shared };

__global__ void double_kernel(float* y, const float* x, int n, Unwritten what) {
  SharedMemory shared;
  const Shared<float> piece = shared.take<float>(int(blockDim.x));
  const int i = int(threadIdx.x);
  if (what != Unwritten::shared || i % 2 == 0) piece[i] = i < n ? x[i] : 0;
  __syncthreads();
  if (i < n && (what != Unwritten::global || i != 2)) y[i] = 2 * piece[i];
}

TEST(Simt, CompareSeesWhatWasNotWritten) {
  const Both x = random_both({5}, DType::f32, 1);
  const auto failures = [&](Unwritten what) {
    testing::TestPartResultArray results;
    const testing::ScopedFakeTestPartResultReporter catching(
        testing::ScopedFakeTestPartResultReporter::INTERCEPT_ONLY_CURRENT_THREAD, &results);
    Both y = unwritten({5}, DType::f32);
    compare({{"y", &y, 0}}, [&](const Kernels&, auto on) {
      if (on(y).device() == kGpu) {
        run("double", double_kernel, 1, 32, 128, ptr<float>(on(y)), ptr<float>(on(x)), 5, what);
      } else {
        for (int i = 0; i < 5; ++i) y.cpu.data<float>()[i] = 2 * x.cpu.data<float>()[i];
      }
    });
    return results.size();
  };
  EXPECT_EQ(failures(Unwritten::none), 0);
  EXPECT_GT(failures(Unwritten::global), 0);
  EXPECT_GT(failures(Unwritten::shared), 0);
}

__global__ void pack_kernel(float* to, const float* from) { store_pack(to, load_pack<2>(from)); }

TEST(Simt, AMisalignedPackIsNamed) {
  Tensor t = on_gpu({8}, DType::f32);
  float* const p = ptr<float>(t);
  EXPECT_EQ(error_of([&] { run("pack", pack_kernel, 1, 1, 0, p, p + 6); }), "");
  for (const auto& [to, from] : {std::pair{0, 1}, {3, 0}})
    expect_error([&, to = to, from = from] { run("pack", pack_kernel, 1, 1, 0, p + to, p + from); },
                 {"pack, block (0, 0, 0), thread (0, 0, 0)", "modulo the bytes of its access: 4 outside 8"});
}

TEST(Simt, NewDeviceMemoryIsPoisoned) {
  Tensor f32 = on_gpu({100}, DType::f32), bf16 = on_gpu({100}, DType::bf16);
  EXPECT_TRUE(std::isnan(touch<float>(f32, 99, false)));
  EXPECT_TRUE(std::isnan(float(touch<__nv_bfloat16>(bf16, 0, false))));
}

}  // namespace
}  // namespace switchyard::test
