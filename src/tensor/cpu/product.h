#pragma once

#include <span>

#include "tensor/cpu/panels.h"

namespace switchyard::cpu {

// c (m, n) = or += op(a) (m, k) b (k, n), bf16 times bf16 summed in f32, with b packed. c is f32 or bf16; rows beyond
// what is named are not touched. k = 0 makes c zero or leaves it.
struct Product {
  std::int64_t m = 0, n = 0, k = 0;
  Rows<std::byte> c{};  // pitch in elements, as everywhere
  DType c_dtype = DType::f32;
  Rows<const bf16> a{};
  Trans ta = Trans::no;
  const bf16* b = nullptr;
  std::int64_t b_panel = 0;  // elements from one packed panel of b to the next; 0: panels(k) blocks
  Into into = Into::overwrite;
};

// On the calling thread.
void multiply(const Product& product);
// By all threads together, in blocks of c, each of which one thread makes from start to end: the result does not depend
// on how many threads there are.
void multiply_all(std::span<const Product> products);

}  // namespace switchyard::cpu
