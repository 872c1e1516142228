#include <gtest/gtest.h>

#include "ranks.h"

namespace switchyard {
namespace {

// What all ranks together sent in collectives of this kind.
std::int64_t sent_by_all(Collective collective, ProcessGroup& group, ProcessGroup& world) {
  std::int64_t all = 0;
  const std::int64_t mine = group.traffic()[static_cast<std::size_t>(collective)].bytes;
  for (const std::string& bytes : all_gather_text(world, std::to_string(mine))) all += std::stoll(bytes);
  return all;
}

// The formulas of docs/communication.md, times the ranks; sizes that do not divide as well as others.
TEST(Traffic, EqualsTheClosedFormulas) {
  test::on_ranks([](ProcessGroup& world) {
    const auto group = world.split(0);
    const std::int64_t g = world.size(), me = world.rank();
    for (const std::int64_t n : {0, 1, 8, 13}) {
      const auto part = world.split(0);
      Tensor x = Tensor::zeros({n}, DType::f32, Device{}), all = Tensor::zeros({g * n}, DType::f32, Device{});
      part->all_reduce(x, Reduce::sum);
      EXPECT_EQ(sent_by_all(Collective::all_reduce, *part, world), 2 * (g - 1) * n * 4);
      part->broadcast(x, static_cast<int>(g - 1));
      EXPECT_EQ(sent_by_all(Collective::broadcast, *part, world), (g - 1) * n * 4);
      part->all_gather(all, x);
      EXPECT_EQ(sent_by_all(Collective::all_gather, *part, world), g * (g - 1) * n * 4);
      part->reduce_scatter(x, all);
      EXPECT_EQ(sent_by_all(Collective::reduce_scatter, *part, world), g * (g - 1) * n * 4);
    }
    // rank r sends r + 1 rows of 3 to each rank, itself among them
    std::vector<int> send(static_cast<std::size_t>(g), static_cast<int>(me + 1)), recv;
    for (int r = 0; r < g; ++r) recv.push_back(r + 1);
    const Tensor in = Tensor::zeros({g * (me + 1), 3}, DType::bf16, Device{});
    Tensor out = Tensor::zeros({g * (g + 1) / 2, 3}, DType::bf16, Device{});
    group->all_to_all(out, recv, in, send);
    if (const Wait wait = group->start_all_to_all(out, recv, in, send)) wait();
    EXPECT_EQ(group->traffic()[static_cast<std::size_t>(Collective::all_to_all)],
              (Traffic{.calls = 2, .bytes = 2 * (g - 1) * (me + 1) * 3 * 2}));
  });
}

}  // namespace
}  // namespace switchyard
