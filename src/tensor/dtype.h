#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <ostream>
#include <type_traits>

namespace switchyard {

enum class DType { f32, bf16, i32, i64, u16, u8 };

constexpr std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return 4;
    case DType::bf16: return 2;
    case DType::i32: return 4;
    case DType::i64: return 8;
    case DType::u16: return 2;
    case DType::u8: return 1;
  }
  return 0;
}

constexpr const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return "f32";
    case DType::bf16: return "bf16";
    case DType::i32: return "i32";
    case DType::i64: return "i64";
    case DType::u16: return "u16";
    case DType::u8: return "u8";
  }
  return "?";
}

inline std::ostream& operator<<(std::ostream& out, DType dtype) { return out << name_of(dtype); }

// The upper half of an f32. Storage and the two conversions; a backend may map it to a type of its own.
struct bf16 {
  std::uint16_t bits;

  bf16() = default;
  // Rounds to nearest, ties to even; a NaN stays a NaN.
  explicit bf16(float x) {
    const auto u = std::bit_cast<std::uint32_t>(x);
    const std::uint32_t rounded = u + 0x7fff + (u >> 16 & 1), quiet = u | 0x400000;
    bits = static_cast<std::uint16_t>((x != x ? quiet : rounded) >> 16);
  }
  explicit operator float() const { return std::bit_cast<float>(std::uint32_t{bits} << 16); }
};

template <class T>
consteval DType dtype_for() {
  if constexpr (std::is_same_v<T, float>)
    return DType::f32;
  else if constexpr (std::is_same_v<T, bf16>)
    return DType::bf16;
  else if constexpr (std::is_same_v<T, std::int32_t>)
    return DType::i32;
  else if constexpr (std::is_same_v<T, std::int64_t>)
    return DType::i64;
  else if constexpr (std::is_same_v<T, std::uint16_t>)
    return DType::u16;
  else {
    static_assert(std::is_same_v<T, std::uint8_t>, "no DType for this type");
    return DType::u8;
  }
}
template <class T>
inline constexpr DType dtype_of = dtype_for<T>();

}  // namespace switchyard
