#include "simt/fiber.h"

#include <atomic>
#include <boost/context/protected_fixedsize_stack.hpp>
#include <cstdio>
#include <cstdlib>
#include <utility>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#endif

namespace simt {

namespace ctx = boost::context;

namespace {
// Of which only what is used takes memory. An odd number of pages, and tops at different places of them: else the same
// few lines of a cache would have to hold what all the fibers use.
constexpr std::size_t kStack = 65 * 4096;
std::size_t next_top() {
  static std::atomic<std::size_t> made = 0;
  return made++ * 576 % 4096;
}

class Stacks {
 public:
  ctx::stack_context allocate() { return pages_.allocate(); }
  // What AddressSanitizer marked in the stack must not outlive it: other memory may take its place.
  void deallocate(ctx::stack_context& stack) {
#ifdef __SANITIZE_ADDRESS__
    ASAN_UNPOISON_MEMORY_REGION(static_cast<std::byte*>(stack.sp) - stack.size, stack.size);
#endif
    pages_.deallocate(stack);
  }

 private:
  ctx::protected_fixedsize_stack pages_{kStack};
};

}  // namespace

Fiber::Fiber(std::function<void()> body) : body_(std::move(body)) {
  Stacks stacks;
  const ctx::stack_context stack = stacks.allocate();
  const std::size_t unused = next_top();
  inside_ = {.bottom = static_cast<std::byte*>(stack.sp) - stack.size, .size = stack.size};
#ifdef __SANITIZE_THREAD__
  inside_.thread = __tsan_create_fiber(0);
#endif
  fiber_ = ctx::fiber(std::allocator_arg,
                      ctx::preallocated(static_cast<std::byte*>(stack.sp) - unused, stack.size - unused, stack), stacks,
                      [this](ctx::fiber&& caller) {
                        arrive(inside_, &outside_);
                        caller_ = std::move(caller);
                        body_();
                        depart(nullptr, outside_);
                        return std::move(caller_);
                      });
}

Fiber::~Fiber() {
  if (fiber_) {
    std::fprintf(stderr, "SIMT machine: a fiber dies in the middle of its function\n");
    std::abort();
  }
#ifdef __SANITIZE_THREAD__
  __tsan_destroy_fiber(inside_.thread);
#endif
}

void Fiber::resume() {
#ifdef __SANITIZE_THREAD__
  outside_.thread = __tsan_get_current_fiber();
#endif
  depart(&outside_, inside_);
  fiber_ = std::move(fiber_).resume();
  arrive(outside_, nullptr);
}

void Fiber::leave() {
  depart(&inside_, outside_);
  caller_ = std::move(caller_).resume();
  arrive(inside_, &outside_);
}

void Fiber::depart([[maybe_unused]] Stack* from, [[maybe_unused]] const Stack& to) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(from ? &from->fake : nullptr, to.bottom, to.size);
#endif
#ifdef __SANITIZE_THREAD__
  __tsan_switch_to_fiber(to.thread, 0);
#endif
}

void Fiber::arrive([[maybe_unused]] const Stack& at, [[maybe_unused]] Stack* from) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(at.fake, from ? &from->bottom : nullptr, from ? &from->size : nullptr);
#endif
}

}  // namespace simt
