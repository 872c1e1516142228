#pragma once

#include "checkpoint/saver.h"

namespace switchyard {

// What a signal asks of a run. SIGUSR1, SIGTERM and SIGINT: save and stop at the end of the step; SIGUSR2: save and go
// on. mpirun passes SIGUSR1 and SIGUSR2 on at once; a second SIGINT ends the program where it stands.
enum class Request { none, save, stop };

// Installs the handlers; the handlers only set a flag.
void listen_for_signals();

// What the ranks say after a step, the same on every rank: the strongest request that any has heard, and the progress
// that outweighs the others'. One collective. Forgets a request to save.
struct Agreed {
  Request request = Request::none;
  SaveProgress saving = SaveProgress::written;
};
Agreed agree(ProcessGroup& world, SaveProgress mine);

}  // namespace switchyard
