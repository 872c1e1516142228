#pragma once

#include "dist/process_group.h"

namespace switchyard {

// What a signal asks of a run. SIGUSR1, SIGTERM and SIGINT: save and stop at the end of the step; SIGUSR2: save and go
// on. mpirun passes SIGUSR1 and SIGUSR2 on at once; a second SIGINT ends the program where it stands.
enum class Request { none, save, stop };

// Installs the handlers; the handlers only set a flag.
void listen_for_signals();

// The strongest request that any rank has heard; the same answer on every rank. Forgets a request to save.
Request agreed_request(ProcessGroup& world);

}  // namespace switchyard
