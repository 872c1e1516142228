#include "cuda/both.h"
#include "simt/guarded.h"
#include "simt/simt.h"

namespace switchyard::test {

// Ascending, descending, shuffled: a result that a missing barrier leaves to chance differs between them.
void on_each_schedule(const std::function<void()>& body) {
  for (unsigned schedule : {0u, 1u, 7u}) {
    simt::set_schedule(schedule);
    body();
  }
  simt::set_schedule(0);
}

}  // namespace switchyard::test

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  simt::name_bad_accesses();
  return RUN_ALL_TESTS();
}
