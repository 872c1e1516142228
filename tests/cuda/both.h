#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <vector>

#include "grad_check.h"
#include "tensor/kernels.h"

// CPU beside CUDA: each row of the kernel table from the same inputs on both. The same tests run on the SIMT machine
// (simt_tests) and on a real GPU (cuda_tests).
namespace switchyard::test {

inline constexpr Device kGpu{DeviceType::cuda, 0};

// The same tensor on both devices.
struct Both {
  Tensor cpu, gpu;
};

inline Both both(const Tensor& host) { return {host, host ? to_device(host, kGpu) : Tensor()}; }
inline Both random_both(Shape shape, DType dtype, unsigned seed, float scale = 1) {
  return both(cast(random(shape, seed, scale), dtype));
}
// For results: every float is a NaN until it is written.
inline Both unwritten(Shape shape, DType dtype) {
  Tensor t = Tensor::empty(shape, dtype, Device{});
  std::fill(t.bytes(), t.bytes() + t.size_in_bytes(), std::byte{0xff});
  return both(t);
}

// Runs body once for each order in which a kernel's threads may get their turns (tests/simt), or twice on a real GPU.
void on_each_schedule(const std::function<void()>& body);

inline double number_at(const Tensor& t, std::int64_t i) {
  return t.dtype() == DType::i32 ? t.data<std::int32_t>()[i] : at(t, i);
}

inline void expect_agreement(const Tensor& gpu, const Tensor& cpu, double tolerance, const char* name) {
  const Tensor host = to_device(gpu, Device{});
  for (std::int64_t i = 0; i < cpu.numel(); ++i) {
    const double expected = number_at(cpu, i), actual = number_at(host, i);
    const bool close = std::abs(actual - expected) <= tolerance * std::max(1.0, std::abs(expected)) ||
                       actual == expected || (std::isnan(actual) && std::isnan(expected));
    ASSERT_TRUE(close) << name << ' ' << cpu.shape() << '[' << i << "]: " << actual << " on the GPU, " << expected
                       << " on the CPU, tolerance " << tolerance;
  }
}

struct Output {
  const char* name;
  Both* tensor;
  double tolerance;  // relative to max(1, |expected|)
};

// row(kernels, on) makes one call, with on(x) the tensor of that device. Compares what the outputs hold afterwards:
// the GPU's with the CPU's, and the GPU's under every schedule with each other, bit for bit. Outputs hold at the start
// of each call what they held at the first.
template <class Row>
void compare(std::initializer_list<Output> outputs, Row row) {
  std::vector<Tensor> before, first;
  for (const Output& o : outputs) before.push_back(to_device(o.tensor->gpu, Device{}));
  row(
      kernels(Device{}), [](auto& x) -> auto& { return x.cpu; });
  on_each_schedule([&] {
    std::size_t i = 0;
    for (const Output& o : outputs) kernels(kGpu).copy(o.tensor->gpu, before[i++]);
    row(
        kernels(kGpu), [](auto& x) -> auto& { return x.gpu; });
    i = 0;
    for (const Output& o : outputs) {
      const Tensor now = to_device(o.tensor->gpu, Device{});
      if (first.size() < outputs.size()) {
        expect_agreement(now, o.tensor->cpu, o.tolerance, o.name);
        first.push_back(now);
      } else {
        EXPECT_EQ(std::memcmp(now.bytes(), first[i].bytes(), now.size_in_bytes()), 0)
            << o.name << " depends on the order in which threads run";
      }
      ++i;
    }
  });
}

}  // namespace switchyard::test
