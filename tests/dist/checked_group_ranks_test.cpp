#include "dist/checked_group.h"

#include <gtest/gtest.h>

#include "autograd/scope.h"
#include "device_collectives.h"
#include "grad_check.h"
#include "ranks.h"

namespace switchyard {
namespace {

using test::on_ranks;

// What the body says on this rank, after checking that every rank says the same.
std::string complaint(ProcessGroup& world, const std::function<void()>& body) {
  std::string what = "none";
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::communication);
    what = error.what();
  }
  for (const std::string& theirs : all_gather_text(world, what)) EXPECT_EQ(theirs, what);
  return what;
}

void sum(ProcessGroup& group, std::int64_t n) {
  Tensor x = Tensor::zeros({n}, DType::f32, Device{});
  group.all_reduce(x, Reduce::sum);
}

TEST(CheckedGroup, GivesTheBitsOfTheGroup) {
  on_ranks({1, 2, 3}, [](ProcessGroup& world) {
    const auto group = make_checked_group(world.split(0));
    test::DeviceCollectives(*group, world, Device{}, test::DeviceCollectives::Order::by_rank).check();
    const auto part = group->split(world.rank() % 2), plain = world.split(world.rank() % 2);
    test::DeviceCollectives(*part, *plain, Device{}, test::DeviceCollectives::Order::by_rank).check();

    const auto fresh = make_checked_group(world.split(0));
    const auto reference = world.split(0);
    sum(*fresh, 8);
    sum(*reference, 8);
    EXPECT_EQ(fresh->traffic(), reference->traffic()) << "comparing is not counted";
  });
}

TEST(CheckedGroup, NamesTheRankWithAnotherShapeCollectiveOrLayer) {
  on_ranks({3, 4}, [](ProcessGroup& world) {
    const auto group = make_checked_group(world.split(0));
    const bool odd = world.rank() == 1;
    const std::string others = world.size() == 3 ? "ranks 0, 2 have" : "ranks 0, 2, 3 have";
    EXPECT_EQ(complaint(world, [&] { sum(*group, odd ? 5 : 3); }),
              "the ranks do not agree:\n  collective: rank 1 has \"all_reduce(sum) of f32 (5)\", " + others +
                  " \"all_reduce(sum) of f32 (3)\"");
    EXPECT_EQ(
        complaint(world, [&] { odd ? group->barrier() : sum(*group, 3); }),
        "the ranks do not agree:\n  collective: rank 1 has \"barrier\", " + others + " \"all_reduce(sum) of f32 (3)\"");
    EXPECT_EQ(complaint(world,
                        [&] {
                          const Scope scope(odd ? "layers.1.mlp" : "layers.0.mlp");
                          sum(*group, 3);
                        }),
              "the ranks do not agree:\n  in: rank 1 has \"layers.1.mlp\", " + others + " \"layers.0.mlp\"");
    EXPECT_EQ(complaint(world, [&] { sum(*group, 3); }), "none");
  });
}

TEST(CheckedGroup, NamesRanksOfAPartAsTheWorldDoes) {
  on_ranks({4}, [](ProcessGroup& world) {
    const auto group = make_checked_group(world.split(0));
    const auto part = group->split(world.rank() / 2), plain = world.split(world.rank() / 2);
    const std::string what = complaint(*plain, [&] { sum(*part, world.rank() == 3 ? 5 : 3); });
    EXPECT_EQ(what, world.rank() < 2 ? "none"
                                     : "the ranks do not agree:\n  collective: rank 3 has \"all_reduce(sum) of f32 "
                                       "(5)\", rank 2 has \"all_reduce(sum) of f32 (3)\"");
  });
}

TEST(CheckedGroup, ComparesTheRowsOfAnAllToAll) {
  on_ranks({2}, [](ProcessGroup& world) {
    const auto group = make_checked_group(world.split(0));
    const Scope scope("layers.2.mlp");
    const std::vector<int> send{1, 1}, recv{1, world.rank() == 1 ? 2 : 1};
    Tensor in = Tensor::zeros({2, 3}, DType::f32, Device{});
    Tensor out = Tensor::zeros({recv[0] + recv[1], 3}, DType::f32, Device{});
    const std::string what = "all_to_all in layers.2.mlp: rank 1 sends 1 rows to rank 1, which expects 2";
    EXPECT_EQ(complaint(world, [&] { group->all_to_all(out, recv, in, send); }), what);
    EXPECT_EQ(complaint(world, [&] { static_cast<void>(group->start_all_to_all(out, recv, in, send)); }), what);
  });
}

// The gradient's collective is checked under the name that forward had.
TEST(CheckedGroup, BackwardKeepsTheLayersName) {
  on_ranks({2}, [](ProcessGroup& world) {
    const auto group = make_checked_group(world.split(0));
    const Variable x(test::random({2, 3}, 1), true);
    Variable checked = [&] {
      const Scope scope(world.rank() == 0 ? "layers.0" : "layers.1");
      return record("sums", x.value(), {x}, [&](const Tensor& d) -> Grads {
        sum(*group, 1);
        return {d};
      });
    }();
    EXPECT_STREQ(Scope::current(), "");
    const std::string what = complaint(world, [&] { checked.backward(test::random({2, 3}, 2)); });
    EXPECT_EQ(what, "the ranks do not agree:\n  in: rank 1 has \"layers.1\", rank 0 has \"layers.0\"");
  });
}

}  // namespace
}  // namespace switchyard
