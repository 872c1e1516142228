#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/simd.h"

namespace switchyard::cpu {
namespace {

constexpr std::size_t kCacheLine = 64, kHugePage = std::size_t{2} << 20;

// Calls body(begin, end) for the pieces of [0, n), on several threads where that is worth it.
template <class Body>
void in_pieces(std::int64_t n, Body body) {
  constexpr std::int64_t kPiece = 1 << 14;
#pragma omp parallel for schedule(static) if (n > kParallelElements)
  for (std::int64_t begin = 0; begin < n; begin += kPiece) body(begin, std::min(begin + kPiece, n));
}

}  // namespace

std::byte* system_allocate(Device, std::size_t bytes) {
  void* block = nullptr;
  const bool huge = bytes >= kHugePage;
  if (posix_memalign(&block, huge ? kHugePage : kCacheLine, bytes) != 0) return nullptr;
  if (huge) madvise(block, bytes, MADV_HUGEPAGE);  // only a wish: without huge pages it is slower, not wrong
  return static_cast<std::byte*>(block);
}

void system_release(Device, std::byte* block, std::size_t) { std::free(block); }

void zero(Tensor& x) {
  std::byte* bytes = x.bytes();
  const auto size = static_cast<std::int64_t>(size_of(x.dtype()));
  in_pieces(x.numel(), [=](std::int64_t begin, std::int64_t end) {
    std::memset(bytes + begin * size, 0, static_cast<std::size_t>((end - begin) * size));
  });
}

void copy(Tensor& y, const Tensor& x) {
  if (y.dtype() == x.dtype()) {
    std::byte* to = y.bytes();
    const std::byte* from = x.bytes();
    const auto size = static_cast<std::int64_t>(size_of(x.dtype()));
    in_pieces(x.numel(), [=](std::int64_t begin, std::int64_t end) {
      std::memcpy(to + begin * size, from + begin * size, static_cast<std::size_t>((end - begin) * size));
    });
    return;
  }
  with_row_type(y.dtype(), [&](auto to_type) {
    with_row_type(x.dtype(), [&](auto from_type) {
      auto* to = y.data<decltype(to_type)>();
      const auto* from = x.data<decltype(from_type)>();
      in_pieces(x.numel(),
                [=](std::int64_t begin, std::int64_t end) { convert_row(to + begin, from + begin, end - begin); });
    });
  });
}

void add(Tensor& y, const Tensor& x) {
  with_row_type(y.dtype(), [&](auto y_type) {
    with_row_type(x.dtype(), [&](auto x_type) {
      using Y = decltype(y_type);
      Y* ys = y.data<Y>();
      const auto* xs = x.data<decltype(x_type)>();
      in_pieces(x.numel(), [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
        for (std::int64_t i = begin; i < end; ++i) ys[i] = from_float<Y>(to_float(ys[i]) + to_float(xs[i]));
      });
    });
  });
}

void scale(Tensor& x, const Tensor& factor_1) {
  const float factor = *factor_1.data<float>();
  with_row_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    T* xs = x.data<T>();
    in_pieces(x.numel(), [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) xs[i] = from_float<T>(to_float(xs[i]) * factor);
    });
  });
}

}  // namespace switchyard::cpu
