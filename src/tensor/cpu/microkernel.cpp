#include "tensor/cpu/microkernel.h"

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

namespace switchyard::cpu {
namespace {

constexpr std::int64_t kPairs = kPanel / 2;

void nothing() {}

// Any x86-64 or other processor: the pairs are split into two f32 vectors by a shift and a mask.
using Floats = float __attribute__((vector_size(32)));
using Bits = std::uint32_t __attribute__((vector_size(32)));
constexpr int kLanes = 8, kRowsAtOnce = 4, kVectors = 2;

void portable(Rows<float> c, LeftPanel a, const bf16* b, std::int64_t rows, std::int64_t blocks, Into into) {
  for (std::int64_t first = 0; first < rows; first += kRowsAtOnce)
    for (std::int64_t col = 0; col < kPanel; col += kVectors * kLanes) {
      Floats sum[kRowsAtOnce][kVectors] = {};
      for (std::int64_t block = 0; block < blocks; ++block)
        for (std::int64_t pair = 0; pair < kPairs; ++pair) {
          Floats low[kVectors], high[kVectors];
          for (int v = 0; v < kVectors; ++v) {
            Bits bits;
            std::memcpy(&bits, b + block * kBlockSize + 2 * (pair * kPanel + col + v * kLanes), sizeof(bits));
            const Bits upper = bits << 16, lower = bits & 0xffff0000u;
            std::memcpy(&low[v], &upper, sizeof(upper));
            std::memcpy(&high[v], &lower, sizeof(lower));
          }
          for (int i = 0; i < kRowsAtOnce; ++i) {
            const bf16* x = a.data + (first + i) * a.row_pitch + block * a.block_pitch + 2 * pair;
            for (int v = 0; v < kVectors; ++v)
              sum[i][v] += static_cast<float>(x[0]) * low[v] + static_cast<float>(x[1]) * high[v];
          }
        }
      for (int i = 0; i < kRowsAtOnce; ++i)
        for (int v = 0; v < kVectors; ++v) {
          float* y = c.data + (first + i) * c.pitch + col + v * kLanes;
          Floats before = {};
          if (into == Into::accumulate) std::memcpy(&before, y, sizeof(before));
          before += sum[i][v];
          std::memcpy(y, &before, sizeof(before));
        }
    }
}

#if defined(__x86_64__)
[[gnu::target("avx512f,avx512bw,avx512bf16")]] void avx512_bf16(Rows<float> c, LeftPanel a, const bf16* b,
                                                                std::int64_t rows, std::int64_t blocks, Into into) {
  constexpr int kAtOnce = 8;
  for (std::int64_t first = 0; first < rows; first += kAtOnce) {
    __m512 sum[kAtOnce][2];
    float* y = c.data + first * c.pitch;
    for (int i = 0; i < kAtOnce; ++i)
      for (int v = 0; v < 2; ++v)
        sum[i][v] = into == Into::accumulate ? _mm512_loadu_ps(y + i * c.pitch + v * 16) : _mm512_setzero_ps();
    for (std::int64_t block = 0; block < blocks; ++block)
      for (std::int64_t pair = 0; pair < kPairs; ++pair) {
        const bf16* right = b + block * kBlockSize + 2 * pair * kPanel;
        const bf16* left = a.data + first * a.row_pitch + block * a.block_pitch + 2 * pair;
        const auto b0 = (__m512bh)_mm512_loadu_si512(right), b1 = (__m512bh)_mm512_loadu_si512(right + kPanel);
#pragma GCC unroll 8
        for (int i = 0; i < kAtOnce; ++i) {
          int word;
          std::memcpy(&word, left + i * a.row_pitch, sizeof(word));
          const auto x = (__m512bh)_mm512_set1_epi32(word);
          sum[i][0] = _mm512_dpbf16_ps(sum[i][0], x, b0);
          sum[i][1] = _mm512_dpbf16_ps(sum[i][1], x, b1);
        }
      }
    for (int i = 0; i < kAtOnce; ++i)
      for (int v = 0; v < 2; ++v) _mm512_storeu_ps(y + i * c.pitch + v * 16, sum[i][v]);
  }
}

// What LDTILECFG reads. Every tile has 16 rows of 64 bytes: c 0..3, a 4..5, b 6..7.
struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Inline assembly, as GCC 12's intrinsics tell the compiler neither of the memory that they read nor of what they
// write.
#define TILE_LOAD(tile, address, pitch) \
  asm volatile("tileloadd (%0,%1,1), %%tmm" #tile ::"r"(address), "r"(pitch) : "memory")
#define TILE_STORE(tile, address, pitch) \
  asm volatile("tilestored %%tmm" #tile ", (%0,%1,1)" ::"r"(address), "r"(pitch) : "memory")
#define TILE_ZERO(tile) asm volatile("tilezero %%tmm" #tile ::)
#define TILE_PRODUCT(c, a, b) asm volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c ::)

void amx_begin() {
  static constexpr TileConfig kConfig;
  asm volatile("ldtilecfg %0" ::"m"(kConfig));
}
void amx_end() { asm volatile("tilerelease" ::); }

void amx(Rows<float> c, LeftPanel a, const bf16* b, std::int64_t rows, std::int64_t blocks, Into into) {
  constexpr std::int64_t kTile = 16, kBytes = sizeof(bf16), b_pitch = 2 * kPanel * kBytes;
  const bool tall = rows > kTile;
  const std::int64_t c_pitch = c.pitch * static_cast<std::int64_t>(sizeof(float)), a_pitch = a.row_pitch * kBytes;
  float* c_low = c.data + kTile * c.pitch;
  const bf16* a_low = a.data + kTile * a.row_pitch;
  if (into == Into::accumulate) {
    TILE_LOAD(0, c.data, c_pitch);
    TILE_LOAD(1, c.data + kTile, c_pitch);
    if (tall) {
      TILE_LOAD(2, c_low, c_pitch);
      TILE_LOAD(3, c_low + kTile, c_pitch);
    }
  } else {
    TILE_ZERO(0);
    TILE_ZERO(1);
    TILE_ZERO(2);
    TILE_ZERO(3);
  }
  if (tall) {
    for (std::int64_t block = 0; block < blocks; ++block) {
      TILE_LOAD(6, b + block * kBlockSize, b_pitch);
      TILE_LOAD(4, a.data + block * a.block_pitch, a_pitch);
      TILE_PRODUCT(0, 4, 6);
      TILE_LOAD(7, b + block * kBlockSize + kPanel, b_pitch);
      TILE_PRODUCT(1, 4, 7);
      TILE_LOAD(5, a_low + block * a.block_pitch, a_pitch);
      TILE_PRODUCT(2, 5, 6);
      TILE_PRODUCT(3, 5, 7);
    }
    TILE_STORE(2, c_low, c_pitch);
    TILE_STORE(3, c_low + kTile, c_pitch);
  } else {
    for (std::int64_t block = 0; block < blocks; ++block) {
      TILE_LOAD(4, a.data + block * a.block_pitch, a_pitch);
      TILE_LOAD(6, b + block * kBlockSize, b_pitch);
      TILE_PRODUCT(0, 4, 6);
      TILE_LOAD(7, b + block * kBlockSize + kPanel, b_pitch);
      TILE_PRODUCT(1, 4, 7);
    }
  }
  TILE_STORE(0, c.data, c_pitch);
  TILE_STORE(1, c.data + kTile, c_pitch);
}

#undef TILE_LOAD
#undef TILE_STORE
#undef TILE_ZERO
#undef TILE_PRODUCT

// Linux lets a process use the tile registers only after it asked for their part of the thread state.
bool ask_for_tiles() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

}  // namespace

Isa best_isa() {
#if defined(__x86_64__)
  static const Isa isa = [] {
    if (__builtin_cpu_supports("amx-bf16") && __builtin_cpu_supports("amx-tile") && ask_for_tiles()) return Isa::amx;
    return __builtin_cpu_supports("avx512bf16") ? Isa::avx512_bf16 : Isa::portable;
  }();
  return isa;
#else
  return Isa::portable;
#endif
}

Microkernel microkernel(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::amx) return {amx_begin, amx, amx_end};
  if (isa == Isa::avx512_bf16) return {nothing, avx512_bf16, nothing};
#endif
  SY_CHECK(isa == Isa::portable, "this build has no such micro-kernel");
  return {nothing, portable, nothing};
}

}  // namespace switchyard::cpu
