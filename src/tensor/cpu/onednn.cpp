#include "tensor/cpu/onednn.h"

#include <dnnl.h>

#include <algorithm>

namespace switchyard::cpu {

void multiply_f32(Rows<float> c, Rows<const float> a, Rows<const float> b, std::int64_t m, std::int64_t n,
                  std::int64_t k, Trans ta, Trans tb, Into into) {
  if (m == 0 || n == 0) return;
  if (k == 0) {
    if (into == Into::overwrite)
      for (std::int64_t i = 0; i < m; ++i) std::fill_n(c.data + i * c.pitch, n, 0.0f);
    return;
  }
  const auto letter = [](Trans t) { return t == Trans::yes ? 'T' : 'N'; };
  const dnnl_status_t status = dnnl_sgemm(letter(ta), letter(tb), m, n, k, 1.0f, a.data, a.pitch, b.data, b.pitch,
                                          into == Into::accumulate ? 1.0f : 0.0f, c.data, c.pitch);
  SY_CHECK(status == dnnl_success, "dnnl_sgemm of (", m, ", ", k, ") and (", k, ", ", n, ") gave status ", status);
}

}  // namespace switchyard::cpu
