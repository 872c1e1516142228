#pragma once

#include <nccl.h>

// What goes wrong in the stand-in's NCCL (nccl.cpp).
namespace simt {

// The next collective of this rank, of whichever communicator, ends in this error some time after it was issued, and
// takes part in nothing.
void fail_next_collective(int rank, ncclResult_t error);

// Communicators that are neither destroyed nor aborted.
int live_communicators();

}  // namespace simt
