#pragma once

#include "tensor/cpu/panels.h"

// The one door to oneDNN, which makes the f32 products.
namespace switchyard::cpu {

// c (m, n) = or += op(a) op(b), row-major f32, any sizes. By all threads where the caller is alone, else by the caller.
void multiply_f32(Rows<float> c, Rows<const float> a, Rows<const float> b, std::int64_t m, std::int64_t n,
                  std::int64_t k, Trans ta, Trans tb, Into into);

}  // namespace switchyard::cpu
