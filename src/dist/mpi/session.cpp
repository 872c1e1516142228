#include "dist/mpi/session.h"

#include <cstdio>
#include <cstdlib>

#include "tensor/error.h"

namespace switchyard::mpi {

std::string reason_of(int code) {
  char reason[MPI_MAX_ERROR_STRING] = "unknown error";
  int length = 0;
  MPI_Error_string(code, reason, &length);
  return reason;
}

void require(int code, const char* call) {
  if (code == MPI_SUCCESS) [[likely]]
    return;
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  throw Error(text("rank ", rank, ": ", call, " failed: ", reason_of(code)), Fault::communication);
}

Session& Session::get() {
  static Session session;
  return session;
}

Session::Session() {
  int initialised = 0, provided = MPI_THREAD_SERIALIZED;
  require(MPI_Initialized(&initialised), "MPI_Initialized");
  if (!initialised) require(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread");
  SY_REQUIRE(provided >= MPI_THREAD_FUNNELED, Fault::communication,
             "this MPI library cannot be used by a program with threads (it offers level ", provided, ")");
  require(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
}

Session::~Session() {
  int finalised = 0;
  MPI_Finalized(&finalised);
  if (!deserted_ && !finalised) MPI_Finalize();
}

void abort(int exit_code) {
  std::fflush(nullptr);
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

}  // namespace switchyard::mpi
