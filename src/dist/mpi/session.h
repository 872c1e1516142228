#pragma once

#define OMPI_SKIP_MPICXX 1  // the C interface only
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <string>

namespace switchyard::mpi {

std::string reason_of(int code);
// Error (Fault::communication) where an MPI call did not succeed.
void require(int code, const char* call);

// MPI in this process, from the first world to the end of the program.
class Session {
 public:
  static Session& get();

  // An exception is taking this rank out of the job while the others may wait in a collective. MPI_Finalize would wait
  // for them, and they for us; leaving without it makes the launcher stop them.
  void desert() { deserted_ = true; }

  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

 private:
  Session();
  ~Session();

  bool deserted_ = false;
};

// Ends the whole job.
[[noreturn]] void abort(int exit_code);

}  // namespace switchyard::mpi
