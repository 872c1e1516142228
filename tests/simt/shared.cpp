#include "simt/shared.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

namespace simt {
namespace {

constexpr std::byte kPoison{0xff};
constexpr std::size_t kPage = 4096, kBefore = 64;
constexpr std::size_t kRoom = (SharedPieces::kMostBytes + kBefore + kPage - 1) / kPage * kPage, kSlot = kRoom + kPage;

std::size_t aligned(std::size_t bytes) { return (bytes + 15) / 16 * 16; }

void poison(std::byte* begin, std::byte* end) {
  std::memset(begin, int(kPoison), static_cast<std::size_t>(end - begin));
}
bool poisoned(const std::byte* begin, const std::byte* end) {
  return std::all_of(begin, end, [](std::byte b) { return b == kPoison; });
}

}  // namespace

SharedPieces::SharedPieces() {
  void* const pages =
      mmap(nullptr, kMost * kSlot, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) throw std::bad_alloc();
  pages_ = static_cast<std::byte*>(pages);
  for (int n = 0; n < kMost; ++n)
    if (mprotect(end_of(n), kPage, PROT_NONE) != 0) throw std::bad_alloc();
}

SharedPieces::~SharedPieces() { munmap(pages_, kMost * kSlot); }

std::byte* SharedPieces::end_of(int n) const { return pages_ + static_cast<std::size_t>(n) * kSlot + kRoom; }

std::byte* SharedPieces::take(int n, std::size_t bytes) {
  std::size_t& most = bytes_[static_cast<std::size_t>(n)];
  std::byte *const begin = end_of(n) - aligned(bytes), *const known = end_of(n) - (most ? aligned(most) : 0);
  if (bytes > most) {
    if (begin < known) poison(begin - kBefore, known);
    most = bytes;
  }
  return begin;
}

void SharedPieces::begin_launch() { bytes_.fill(0); }

void SharedPieces::begin_block() {
  for (int n = 0; n < kMost; ++n)
    if (const std::size_t bytes = bytes_[static_cast<std::size_t>(n)])
      poison(end_of(n) - aligned(bytes) - kBefore, end_of(n));
}

std::string SharedPieces::damage() const {
  for (int n = 0; n < kMost; ++n) {
    const std::size_t bytes = bytes_[static_cast<std::size_t>(n)];
    if (!bytes) continue;
    const std::byte* const begin = end_of(n) - aligned(bytes);
    const bool before = poisoned(begin - kBefore, begin), end = poisoned(begin + bytes, end_of(n));
    if (!before || !end)
      return std::string("wrote ") + (end ? "before" : "past") + " piece " + std::to_string(n) + " of " +
             std::to_string(bytes) + " bytes of its shared memory";
  }
  return "";
}

}  // namespace simt
