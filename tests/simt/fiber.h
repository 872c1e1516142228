#pragma once

#include <boost/context/fiber.hpp>
#include <functional>

namespace simt {

// A function that can be left in its middle and gone on with later, on a stack of its own that ends at a page which
// nobody may touch. Stays on the system thread that made it. Address- and ThreadSanitizer are told of every change of
// stacks. Where the function is left when a Fiber dies, the program is wrong: let it return before.
class Fiber {
 public:
  explicit Fiber(std::function<void()> body);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // From outside: goes on with the function until it leaves or returns.
  void resume();
  // From the function: back to where it was resumed.
  void leave();

 private:
  // A stack as the sanitizers know it.
  struct Stack {
    const void* bottom = nullptr;
    std::size_t size = 0;
    void* fake = nullptr;    // AddressSanitizer's
    void* thread = nullptr;  // ThreadSanitizer's
  };
  static void depart(Stack* from, const Stack& to);  // from is null where it is left for good
  static void arrive(const Stack& at, Stack* from);

  std::function<void()> body_;
  Stack inside_, outside_;
  boost::context::fiber fiber_, caller_;
};

}  // namespace simt
