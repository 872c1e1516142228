#include "dist/mesh.h"

#include <gtest/gtest.h>

#include "grad_check.h"
#include "ranks.h"

namespace switchyard {
namespace {

// Each group holds exactly the ranks that the layout says, in their order.
TEST(Mesh, GroupsAreThoseOfTheLayout) {
  test::on_ranks([](ProcessGroup& world) {
    for (int expert : {1, 2, 3, 4, 8}) {
      if (world.size() % expert != 0) continue;
      const Mesh mesh({.expert = expert}, world);
      EXPECT_EQ(mesh.world, &world);
      const auto members = [&](ProcessGroup& group) {
        Tensor all = Tensor::empty({group.size()}, DType::i32, Device{});
        group.all_gather(all, test::ints({1}, {world.rank()}));
        return std::vector<int>(all.data<std::int32_t>(), all.data<std::int32_t>() + group.size());
      };
      EXPECT_EQ(members(*mesh.data), mesh.layout.dense.peers(world.rank(), {Axis::dp}));
      EXPECT_EQ(members(*mesh.expert), mesh.layout.expert.peers(world.rank(), {Axis::ep}));
      EXPECT_EQ(members(*mesh.expert_data), mesh.layout.expert.peers(world.rank(), {Axis::edp}));
      EXPECT_EQ(mesh.expert->size(), expert);
      EXPECT_EQ(mesh.expert->rank(), world.rank() % expert);
    }
  });
}

TEST(Mesh, RefusesALayoutThatDoesNotFitOnEveryRank) {
  test::on_ranks([](ProcessGroup& world) {
    EXPECT_THROW(Mesh({.data = world.size() + 1}, world), Error);
    EXPECT_THROW(Mesh({.expert = world.size() + 1}, world), Error);
    world.barrier();
  });
}

}  // namespace
}  // namespace switchyard
