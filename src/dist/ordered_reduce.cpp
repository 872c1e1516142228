#include "dist/ordered_reduce.h"

#include <algorithm>
#include <array>
#include <type_traits>

namespace switchyard {
namespace {

// Works in blocks that stay in the first-level cache, so that each part is read once and `out` written once.
template <class T, class Op>
void reduce(T* out, std::span<const std::byte* const> parts, std::int64_t n, Op op) {
  constexpr std::int64_t kBlock = 1024;
  using Sum = std::conditional_t<std::is_same_v<T, bf16>, float, T>;
  std::array<Sum, kBlock> sum;
  for (std::int64_t begin = 0; begin < n; begin += kBlock) {
    const std::int64_t count = std::min(kBlock, n - begin);
    const T* first = reinterpret_cast<const T*>(parts.front()) + begin;
    for (std::int64_t i = 0; i < count; ++i) sum[i] = Sum(first[i]);
    for (const std::byte* bytes : parts.subspan(1)) {
      const T* part = reinterpret_cast<const T*>(bytes) + begin;
      for (std::int64_t i = 0; i < count; ++i) sum[i] = op(sum[i], Sum(part[i]));
    }
    for (std::int64_t i = 0; i < count; ++i) out[begin + i] = T(sum[i]);
  }
}

template <class T>
void reduce(std::byte* out, std::span<const std::byte* const> parts, std::int64_t n, Reduce op) {
  T* y = reinterpret_cast<T*>(out);
  switch (op) {
    case Reduce::sum: return reduce(y, parts, n, [](auto a, auto b) { return a + b; });
    case Reduce::max: return reduce(y, parts, n, [](auto a, auto b) { return a < b || b != b ? b : a; });  // NaN stays
  }
}

}  // namespace

void reduce_in_order(std::byte* out, std::span<const std::byte* const> parts, std::int64_t n, DType dtype, Reduce op) {
  if (dtype == DType::f32) return reduce<float>(out, parts, n, op);
  if (dtype == DType::bf16) return reduce<bf16>(out, parts, n, op);
  SY_CHECK(dtype == DType::i32, "reduces f32, bf16 or i32, got ", dtype);
  reduce<std::int32_t>(out, parts, n, op);
}

}  // namespace switchyard
