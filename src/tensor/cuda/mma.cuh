#pragma once

#include <cstring>
#include <vector>

#include "tensor/cuda/block.cuh"

// The tensor cores and what feeds them, each instruction a small function with a twin for the SIMT machine. All lanes
// of a warp call together. A fragment is what one lane holds of a matrix (PTX ISA, "Matrix multiply-accumulate"): with
// g = lane / 4 and t = lane % 4, a register holds the neighbours (2 t, 2 t + 1) of row g of an 8x8 bf16 matrix.
namespace switchyard::cuda {

using Bf16 = __nv_bfloat16;

#ifdef __CUDACC__

__device__ inline unsigned shared_address(const void* p) { return unsigned(__cvta_generic_to_shared(p)); }

// Two floats as one register, the first in the lower half.
__device__ inline unsigned pack_bf16(float first, float second) {
  unsigned packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(second), "f"(first));
  return packed;
}

// 2^x within 2^-22 of itself; 0 where it would be subnormal.
__device__ inline float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// c (16x8, f32) += a (16x16) b (16x8). a: rows g and g + 8 of columns 0-7, then of 8-15; b: column g, rows 0-7, then
// 8-15; c: row g, columns 2 t and 2 t + 1, then row g + 8.
__device__ inline void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8x8 matrices from shared memory. Lane l brings the address of row l % 8 of matrix l / 8, a multiple of 16.
__device__ inline void load_matrices(unsigned (&to)[4], const Bf16* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}
// The same, each matrix transposed on its way.
__device__ inline void load_matrices_transposed(unsigned (&to)[4], const Bf16* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}

// A thread's copies from global to shared memory that pass by its registers. What copy() began lands at some time
// before the wait that covers it ends; other threads see it after the barrier that follows.
class AsyncCopies {
 public:
  // 16 bytes; zeros where the source is not there, which is then not read.
  template <class T>
  __device__ void copy(T* to, const T* from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(shared_address(to)), "l"(__cvta_generic_to_global(from)), "r"(there ? 16 : 0)
                 : "memory");
  }
  // Ends a group of copies.
  __device__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
  // Waits for all groups but the last `kPending`.
  template <int kPending = 0>
  __device__ void wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
  }
};

#else

inline unsigned pack_bf16(float first, float second) { return Bf16(first).bits | unsigned{Bf16(second).bits} << 16; }
inline float exp2_approx(float x) {
  const float y = std::exp2(x);
  return y < 0x1p-126f ? 0 : y;
}

namespace simt_twin {
inline float element(unsigned pair, int i) { return std::bit_cast<float>(i ? pair & 0xffff0000u : pair << 16); }
struct Row {
  Bf16 v[8];
};
}  // namespace simt_twin

inline void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  struct Operands {
    unsigned a[4], b[2];
  };
  const auto lanes = simt::exchange(kAllLanes, Operands{{a[0], a[1], a[2], a[3]}, {b0, b1}});
  const int g = simt::lane() / 4, t = simt::lane() % 4;
  for (int i = 0; i < 4; ++i)
    for (int k = 0; k < 16; ++k) {
      const int column = 2 * t + i % 2, holder = k % 8 / 2;
      c[i] += simt_twin::element(lanes[std::size_t(g * 4 + holder)].a[i / 2 + k / 8 * 2], k % 2) *
              simt_twin::element(lanes[std::size_t(column * 4 + holder)].b[k / 8], k % 2);
    }
}

inline void load_matrices(unsigned (&to)[4], const Bf16* row) {
  simt_twin::Row mine;
  std::memcpy(&mine, row, sizeof mine);
  const auto rows = simt::exchange(kAllLanes, mine);
  const int g = simt::lane() / 4, t = simt::lane() % 4;
  for (int i = 0; i < 4; ++i) std::memcpy(&to[i], &rows[std::size_t(8 * i + g)].v[2 * t], sizeof to[i]);
}
inline void load_matrices_transposed(unsigned (&to)[4], const Bf16* row) {
  simt_twin::Row mine;
  std::memcpy(&mine, row, sizeof mine);
  const auto rows = simt::exchange(kAllLanes, mine);
  const int g = simt::lane() / 4, t = simt::lane() % 4;
  for (int i = 0; i < 4; ++i) {
    const auto at = std::size_t(8 * i + 2 * t);
    to[i] = rows[at].v[g].bits | unsigned{rows[at + 1].v[g].bits} << 16;
  }
}

// Copies land as late as they may, and their place holds NaNs until then: whoever reads too early, or begins a copy
// where others still read, is found.
class AsyncCopies {
 public:
  template <class T>
  void copy(T* to, const T* from, bool there) {
    Pending copy{to, {}, groups_};
    if (there) std::memcpy(copy.value, from, sizeof copy.value);
    std::memset(static_cast<void*>(to), 0xff, sizeof copy.value);
    pending_.push_back(copy);
  }
  void commit() { ++groups_; }
  template <int kPending = 0>
  void wait() {
    std::erase_if(pending_, [&](const Pending& copy) {
      if (copy.group >= groups_ - kPending) return false;
      std::memcpy(copy.to, copy.value, sizeof copy.value);
      return true;
    });
  }

 private:
  struct Pending {
    void* to;
    unsigned char value[16];
    int group;
  };
  std::vector<Pending> pending_;
  int groups_ = 0;
};

#endif

}  // namespace switchyard::cuda
