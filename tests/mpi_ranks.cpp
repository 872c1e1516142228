#include <gtest/gtest.h>

#include <iostream>

#include "ranks.h"

namespace switchyard::test {
namespace {

ProcessGroup* world = nullptr;

// The job cannot go on without a rank that left its test early: says what failed, and ends it.
class EndJobOnFailure : public testing::EmptyTestEventListener {
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    const char* file = result.file_name() ? result.file_name() : "an exception";
    std::cerr << "rank " << world->rank() << " of " << world->size() << ": " << file << ':' << result.line_number()
              << ": " << result.message() << std::endl;
    world->abort(1);
  }
};

}  // namespace

void on_ranks(const std::vector<int>& sizes, const std::function<void(ProcessGroup& group)>& body) {
  for (int size : sizes) {
    if (size > world->size()) continue;
    const auto group = world->split(world->rank() < size ? 0 : 1);
    if (world->rank() < size) body(*group);
  }
}

}  // namespace switchyard::test

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const auto world = switchyard::make_mpi_world();
  switchyard::test::world = world.get();
  testing::TestEventListeners& listeners = testing::UnitTest::GetInstance()->listeners();
  if (world->rank() > 0) delete listeners.Release(listeners.default_result_printer());
  listeners.Append(new switchyard::test::EndJobOnFailure);
  return RUN_ALL_TESTS();
}
