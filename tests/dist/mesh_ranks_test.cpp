#include "dist/mesh.h"

#include <gtest/gtest.h>

#include "grad_check.h"
#include "ranks.h"

namespace switchyard {
namespace {

// Each group holds exactly the ranks that the layout says, in their order.
TEST(Mesh, GroupsAreThoseOfTheLayout) {
  test::on_ranks([](ProcessGroup& world) {
    for (const auto& [pipeline, tensor, expert, expert_tensor] : {std::tuple{1, 1, 1, 1},
                                                                  {1, 1, 2, 1},
                                                                  {1, 1, 3, 1},
                                                                  {1, 1, 4, 1},
                                                                  {1, 1, 8, 1},
                                                                  {1, 2, 1, 1},
                                                                  {1, 2, 2, 2},
                                                                  {1, 4, 2, 1},
                                                                  {2, 1, 1, 1},
                                                                  {2, 2, 2, 1},
                                                                  {3, 1, 1, 1},
                                                                  {4, 1, 2, 1},
                                                                  {8, 1, 1, 1}}) {
      if (world.size() % (pipeline * tensor) != 0 || world.size() % (pipeline * expert * expert_tensor) != 0) continue;
      const Mesh mesh({.pipeline = pipeline, .tensor = tensor, .expert = expert, .expert_tensor = expert_tensor},
                      world);
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

      const int width = world.size() / pipeline, stage = me / width;
      EXPECT_EQ(mesh.stage(), stage);
      EXPECT_EQ(mesh.is_first(), stage == 0);
      EXPECT_EQ(mesh.is_last(), stage == pipeline - 1);
      EXPECT_EQ(members(*mesh.previous), stage > 0 ? std::vector({me - width, me}) : std::vector{me});
      EXPECT_EQ(members(*mesh.next), stage + 1 < pipeline ? std::vector({me, me + width}) : std::vector{me});
      std::vector<int> ends{me};
      if (pipeline > 1 && (mesh.is_first() || mesh.is_last())) {
        ends.clear();
        for (const int s : {0, pipeline - 1})
          for (int r = me % tensor; r < width; r += tensor) ends.push_back(s * width + r);
      }
      EXPECT_EQ(members(*mesh.ends), ends);
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
