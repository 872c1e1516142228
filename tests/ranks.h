#pragma once

#include <functional>
#include <vector>

#include "dist/process_group.h"

namespace switchyard::test {

inline const std::vector<int> kRankCounts{1, 2, 3, 4, 8};

// Runs the body once for each of `sizes`, on a group of that many ranks. A file tests/<folder>/<name>_ranks_test.cpp is
// linked twice: into the folder's program, where the ranks are threads (thread_ranks.cpp), and into mpi_tests, where
// they are the processes of mpirun (mpi_ranks.cpp) and a size above mpirun's is left to a larger one. Under MPI the
// first failed expectation on any rank ends the whole job, as its peers would wait for ever.
void on_ranks(const std::vector<int>& sizes, const std::function<void(ProcessGroup& group)>& body);

inline void on_ranks(const std::function<void(ProcessGroup& group)>& body) { on_ranks(kRankCounts, body); }

}  // namespace switchyard::test
