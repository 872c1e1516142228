#include "simt/guarded.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <new>

#include "simt/simt.h"

namespace simt {
namespace {

constexpr std::size_t kAlign = 16, kBefore = 64;  // bytes before a block that are looked at after every kernel
constexpr std::size_t kFreed = 4096;              // blocks that stay forbidden
constexpr int kPoison = 0xff;

std::size_t page() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }
std::size_t round_up(std::size_t bytes, std::size_t to) { return (bytes + to - 1) / to * to; }

// Around blocks: a NaN in f32 and bf16, a large negative number in i32, and nothing that a kernel is likely to write.
constexpr std::size_t kPattern = 3 * 4096;
const std::byte* pattern_at(const std::byte* p) {
  static const auto pattern = [] {
    std::array<std::byte, kPattern + 1> bytes;
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = std::byte(i % 2 ? 0xff : 0xa5);
    return bytes;
  }();
  return pattern.data() + reinterpret_cast<std::uintptr_t>(p) % 2;
}
bool intact(const std::byte* begin, const std::byte* end) {
  return std::memcmp(begin, pattern_at(begin), static_cast<std::size_t>(end - begin)) == 0;
}
void guard(std::byte* begin, std::byte* end) {
  std::memcpy(begin, pattern_at(begin), static_cast<std::size_t>(end - begin));
}

struct Pages {
  std::byte* begin = nullptr;
  std::size_t size = 0;  // the first and the last of them are forbidden

  bool hold(const void* p) const { return p >= begin && p < begin + size; }
};

struct Block {
  Pages pages;
  std::byte* begin;
  std::size_t size;
  Where where;

  std::byte* end() const { return begin + size; }
  std::byte* first() const { return pages.begin + page(); }
  std::byte* last() const { return pages.begin + pages.size - page(); }
};

// Never destroyed: tensors may be released when the program ends.
struct Memory {
  std::mutex mutex;
  std::map<const std::byte*, Block> blocks;
  std::deque<Pages> freed;
  const int key = pkey_alloc(0, PKEY_DISABLE_ACCESS);  // of the processor's protection; -1 where it has none
};
Memory& memory() {
  static auto* const all = new Memory;
  return *all;
}

void protect(void* begin, std::size_t bytes, int rights, int key) {
  if ((key < 0 ? mprotect(begin, bytes, rights) : pkey_mprotect(begin, bytes, rights, key)) != 0)
    throw std::bad_alloc();
}

// The block at or before p.
const Block* block_before(const Memory& m, const void* p) {
  const auto next = m.blocks.upper_bound(static_cast<const std::byte*>(p));
  return next == m.blocks.begin() ? nullptr : &std::prev(next)->second;
}

// What an address is, for who died of it.
void describe(char* text, std::size_t size, const void* address, bool kept_out) {
  Memory& m = memory();
  const std::unique_lock lock(m.mutex, std::try_to_lock);
  std::snprintf(text, size, "address %p", address);
  if (!lock) return;
  const auto* const p = static_cast<const std::byte*>(address);
  for (const auto& [begin, block] : m.blocks)
    if (block.pages.hold(p)) {
      if (kept_out)
        std::snprintf(text, size, "the host touches device memory, a block of %zu bytes", block.size);
      else
        std::snprintf(text, size, "%td bytes from the beginning of a block of %zu bytes", p - begin, block.size);
    }
  for (const Pages& pages : m.freed)
    if (pages.hold(p)) std::snprintf(text, size, "memory that was freed");
}

struct sigaction before_segv, before_bus;

// Calls more than a signal handler may, since nothing else goes on. The access is then tried again, and the program
// dies of it as it would have, or a sanitizer tells its part.
void on_bad_access(int signal, siginfo_t* info, void*) {
  char what[128], line[512];
  if (info->si_code == SI_KERNEL)
    std::snprintf(what, sizeof what, "an address that is misaligned or none at all");
  else
    describe(what, sizeof what, info->si_addr, signal == SIGSEGV && info->si_code == SEGV_PKUERR);
  const int length = std::snprintf(line, sizeof line, "bad access in %s: %s\n", where(), what);
  static_cast<void>(!write(STDERR_FILENO, line, std::min(static_cast<std::size_t>(length), sizeof line - 1)));
  sigaction(signal, signal == SIGSEGV ? &before_segv : &before_bus, nullptr);
}

}  // namespace

std::byte* take(std::size_t size, Where where) {
  Memory& m = memory();
  const std::size_t used = round_up(std::max<std::size_t>(size, 1), kAlign),
                    mapped = round_up(used + kBefore, page()) + 2 * page();
  void* const pages = mmap(nullptr, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) throw std::bad_alloc();
  Block block{.pages = {static_cast<std::byte*>(pages), mapped}, .begin = nullptr, .size = size, .where = where};
  protect(block.first(), mapped - 2 * page(), PROT_READ | PROT_WRITE, where == Where::device ? m.key : -1);
  block.begin = block.last() - used;
  const DeviceAccess access;
  guard(block.first(), block.begin);
  std::memset(block.begin, kPoison, size);
  guard(block.end(), block.last());
  const std::scoped_lock lock(m.mutex);
  m.blocks[block.begin] = block;
  return block.begin;
}

void give(const void* begin) {
  Memory& m = memory();
  const std::scoped_lock lock(m.mutex);
  const auto found = m.blocks.find(static_cast<const std::byte*>(begin));
  const char* wrong = nullptr;
  if (found == m.blocks.end()) {
    wrong = "memory is released that is not there";
  } else {
    const DeviceAccess access;
    const Block& block = found->second;
    if (!intact(block.first(), block.begin)) wrong = "something wrote before a block";
    if (!intact(block.end(), block.last())) wrong = "something wrote past a block";
  }
  if (wrong) {
    std::fprintf(stderr, "SIMT machine: %s\n", wrong);
    std::abort();
  }
  const Pages pages = found->second.pages;
  m.blocks.erase(found);
  madvise(pages.begin, pages.size, MADV_DONTNEED);
  protect(pages.begin, pages.size, PROT_NONE, m.key < 0 ? -1 : 0);
  m.freed.push_back(pages);
  if (m.freed.size() > kFreed) {
    munmap(m.freed.front().begin, m.freed.front().size);
    m.freed.pop_front();
  }
}

bool on_device(const void* begin, std::size_t bytes) {
  Memory& m = memory();
  const std::scoped_lock lock(m.mutex);
  const Block* const block = block_before(m, begin);
  return block && block->where == Where::device && static_cast<const std::byte*>(begin) + bytes <= block->end();
}

bool near_device(const void* p) {
  Memory& m = memory();
  const std::scoped_lock lock(m.mutex);
  const auto holds = [p](const Block& b) {
    return b.where == Where::device && b.pages.hold(static_cast<const std::byte*>(p));
  };
  const auto next = m.blocks.upper_bound(static_cast<const std::byte*>(p));
  return (next != m.blocks.end() && holds(next->second)) ||
         (next != m.blocks.begin() && holds(std::prev(next)->second));
}

std::string damage() {
  Memory& m = memory();
  const std::scoped_lock lock(m.mutex);
  const DeviceAccess access;
  std::string what;
  for (const auto& [begin, block] : m.blocks) {
    if (block.where == Where::host) continue;
    std::byte* const before = block.begin - kBefore;
    const bool before_intact = intact(before, block.begin), end_intact = intact(block.end(), block.last());
    if (before_intact && end_intact) continue;
    what = std::string("wrote ") + (end_intact ? "before" : "past") + " a block of " + std::to_string(block.size) +
           " bytes";
    guard(before, block.begin);
    guard(block.end(), block.last());
  }
  return what;
}

bool host_is_kept_out() { return memory().key >= 0; }

DeviceAccess::DeviceAccess() : before_(memory().key < 0 ? 0 : pkey_get(memory().key)) {
  if (memory().key >= 0) pkey_set(memory().key, 0);
}
DeviceAccess::~DeviceAccess() {
  if (memory().key >= 0) pkey_set(memory().key, static_cast<unsigned>(before_));
}

void add_signal_stack() {
  constexpr std::size_t kStack = 64 << 10;
  alignas(16) thread_local std::byte stack[kStack];
  stack_t now{};
  sigaltstack(nullptr, &now);
  if (!(now.ss_flags & SS_DISABLE)) return;  // a sanitizer's, which takes it away itself
  const stack_t own{.ss_sp = stack, .ss_flags = 0, .ss_size = kStack};
  sigaltstack(&own, nullptr);
}

void name_bad_accesses() {
  add_signal_stack();
  struct sigaction action {};
  action.sa_sigaction = on_bad_access;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, &before_segv);
  sigaction(SIGBUS, &action, &before_bus);
}

}  // namespace simt
