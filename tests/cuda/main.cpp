// The tests of this folder on a real GPU.
#include "cuda/both.h"

namespace switchyard::test {

void on_each_schedule(const std::function<void()>& body) {
  body();
  body();
}

}  // namespace switchyard::test

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
