#include "train/signals.h"

#include <csignal>

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

void listen_for_signals() {
  struct sigaction action = {};
  action.sa_flags = SA_RESTART;
  action.sa_handler = on_stop;
  for (const int signal : {SIGUSR1, SIGTERM, SIGINT}) sigaction(signal, &action, nullptr);
  action.sa_handler = on_save;
  sigaction(SIGUSR2, &action, nullptr);
}

Request agreed_request(ProcessGroup& world) {
  std::int32_t mine = static_cast<std::int32_t>(heard_stop   ? Request::stop
                                                : heard_save ? Request::save
                                                             : Request::none);
  heard_save = 0;
  Tensor request = Tensor::of(std::span<const std::int32_t>(&mine, 1), {1}, Device{});
  world.all_reduce(request, Reduce::max);
  return static_cast<Request>(*request.data<std::int32_t>());
}

}  // namespace switchyard
