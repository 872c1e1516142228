#include "dist/mesh.h"

#include <gtest/gtest.h>

#include "grad_check.h"
#include "ranks.h"

namespace switchyard {
namespace {

// Each group holds exactly the ranks that the layout says, in their order.
TEST(Mesh, GroupsAreThoseOfTheLayout) {
  test::on_ranks([](ProcessGroup& world) {
    for (const auto& [tensor, expert, expert_tensor] :
         {std::tuple{1, 1, 1}, {1, 2, 1}, {1, 3, 1}, {1, 4, 1}, {1, 8, 1}, {2, 1, 1}, {2, 2, 2}, {4, 2, 1}}) {
      if (world.size() % tensor != 0 || world.size() % (expert * expert_tensor) != 0) continue;
      const Mesh mesh({.tensor = tensor, .expert = expert, .expert_tensor = expert_tensor}, world);
      const Layout& layout = mesh.layout;
      const int me = world.rank();
      EXPECT_EQ(mesh.world, &world);
      const auto members = [&](ProcessGroup& group) {
        Tensor all = Tensor::empty({group.size()}, DType::i32, Device{});
        group.all_gather(all, test::ints({1}, {me}));
        return std::vector<int>(all.data<std::int32_t>(), all.data<std::int32_t>() + group.size());
      };
      EXPECT_EQ(members(*mesh.data), layout.dense.peers(me, {Axis::dp}));
      EXPECT_EQ(members(*mesh.tensor), layout.dense.peers(me, {Axis::tp}));
      EXPECT_EQ(members(*mesh.tokens), layout.dense.peers(me, {Axis::dp, Axis::tp}));
      EXPECT_EQ(members(*mesh.experts), layout.expert.peers(me, {Axis::ep, Axis::etp}));
      EXPECT_EQ(members(*mesh.expert_data), layout.expert.peers(me, {Axis::edp}));
      EXPECT_EQ(mesh.experts->rank(), me % (expert * expert_tensor));
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
