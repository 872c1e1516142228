#include "train/signals.h"

#include <csignal>
#include <cstddef>

namespace switchyard {
namespace {

volatile std::sig_atomic_t heard_save = 0;
volatile std::sig_atomic_t heard_stop = 0;

void on_save(int) { heard_save = 1; }

void on_stop(int signal) {
  heard_stop = 1;
  if (signal == SIGINT) std::signal(SIGINT, SIG_DFL);
}

}  // namespace

// Handlers run on a stack of their own: oneDNN's generated products keep data below the stack's end, where a signal's
// frame would overwrite it.
void listen_for_signals() {
  alignas(64) static std::byte stack[1 << 17];
  stack_t alternate = {};
  alternate.ss_sp = stack;
  alternate.ss_size = sizeof(stack);
  sigaltstack(&alternate, nullptr);

  struct sigaction action = {};
  action.sa_flags = SA_RESTART | SA_ONSTACK;
  action.sa_handler = on_stop;
  for (const int signal : {SIGUSR1, SIGTERM, SIGINT}) sigaction(signal, &action, nullptr);
  action.sa_handler = on_save;
  sigaction(SIGUSR2, &action, nullptr);
}

Agreed agree(ProcessGroup& world, SaveProgress mine) {
  const Request heard = heard_stop ? Request::stop : heard_save ? Request::save : Request::none;
  heard_save = 0;
  const std::int32_t said[] = {static_cast<std::int32_t>(heard), static_cast<std::int32_t>(mine)};
  Tensor strongest = Tensor::of(std::span<const std::int32_t>(said), {2}, Device{});
  world.all_reduce(strongest, Reduce::max);
  const std::int32_t* all = strongest.data<std::int32_t>();
  return {static_cast<Request>(all[0]), static_cast<SaveProgress>(all[1])};
}

}  // namespace switchyard
