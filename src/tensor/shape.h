#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <ostream>

#include "tensor/error.h"

namespace switchyard {

// Up to four dimensions, held by value. Negative axes count from the end.
class Shape {
 public:
  static constexpr int kMaxRank = 4;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims) {
    SY_CHECK(dims.size() <= kMaxRank, "a shape has at most ", kMaxRank, " dimensions, got ", dims.size());
    for (auto dim : dims) dims_[static_cast<std::size_t>(rank_++)] = dim;
  }

  int rank() const { return rank_; }
  std::int64_t operator[](int axis) const { return dims_[at(axis)]; }
  std::int64_t numel() const {
    std::int64_t n = 1;
    for (int i = 0; i < rank_; ++i) n *= (*this)[i];
    return n;
  }
  // The same shape with one axis of another size.
  Shape with(int axis, std::int64_t size) const {
    Shape shape = *this;
    shape.dims_[at(axis)] = size;
    return shape;
  }
  bool operator==(const Shape&) const = default;

 private:
  std::size_t at(int axis) const { return static_cast<std::size_t>(axis < 0 ? axis + rank_ : axis); }

  std::array<std::int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

inline std::ostream& operator<<(std::ostream& out, const Shape& shape) {
  out << '(';
  for (int i = 0; i < shape.rank(); ++i) out << (i ? ", " : "") << shape[i];
  return out << ')';
}

}  // namespace switchyard
