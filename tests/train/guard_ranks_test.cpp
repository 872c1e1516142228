#include <gtest/gtest.h>

#include "ranks.h"
#include "train/small_run.h"

namespace switchyard {
namespace {

TEST(Guard, CheckedCollectivesChangeNothing) {
  test::on_ranks({2, 4}, [](ProcessGroup& world) {
    const test::RunDir dir("checked", world);
    double losses[2];
    for (const bool checked : {false, true}) {
      Config config = dir.config(world.size() / 2, 2);
      config.parallel.tensor = 2;
      config.run.dir += checked ? "checked" : "plain";
      config.debug.collectives = checked;
      Trainer trainer(config, world, ProgressStyle::none);
      trainer.step();
      losses[checked] = trainer.step().loss;
    }
    EXPECT_EQ(losses[0], losses[1]);
    world.barrier();
  });
}

}  // namespace
}  // namespace switchyard
