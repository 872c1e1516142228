#include "dist/device_group.h"

#include <gtest/gtest.h>

#include "device_collectives.h"
#include "dist/host.h"
#include "ranks.h"

namespace switchyard {
namespace {

using test::DeviceCollectives, test::on_ranks, test::same_bits;

// Stands for a device: memory that is not where the host group's tensors lie.
constexpr Device kElsewhere{DeviceType::cpu, 1};

TEST(HostStaged, GivesTheBitsOfTheHostGroup) {
  on_ranks([](ProcessGroup& world) {
    const auto group = make_host_staged_group(world.split(0), kElsewhere);
    EXPECT_EQ(group->rank(), world.rank());
    EXPECT_EQ(group->size(), world.size());
    DeviceCollectives(*group, world, kElsewhere, DeviceCollectives::Order::by_rank).check();
    DeviceCollectives(*group, world, Device{}, DeviceCollectives::Order::by_rank).check();  // host tensors go past it
    group->barrier();

    const auto part = group->split(world.rank() % 2), host_part = world.split(world.rank() % 2);
    EXPECT_EQ(part->size(), host_part->size());
    DeviceCollectives(*part, *host_part, kElsewhere, DeviceCollectives::Order::by_rank).check();
  });
}

TEST(HostStaged, LargeSumsTravelInPieces) {
  on_ranks({2}, [](ProcessGroup& world) {
    const auto group = make_host_staged_group(world.split(0), kElsewhere);
    const std::int64_t n = (4 << 20) + 5;
    Tensor x = Tensor::zeros({n}, DType::f32, kElsewhere), expected = Tensor::zeros({n}, DType::f32, Device{});
    for (std::int64_t i = 0; i < n; ++i) x.data<float>()[i] = expected.data<float>()[i] = 1.0f / float(i + 1);
    group->all_reduce(x, Reduce::sum);
    world.all_reduce(expected, Reduce::sum);
    EXPECT_TRUE(same_bits(x, expected));
  });
}

TEST(HostStaged, RefusesTensorsOfOtherDevices) {
  on_ranks([](ProcessGroup& world) {
    const auto group = make_host_staged_group(world.split(0), kElsewhere);
    const Device third{DeviceType::cpu, 2};
    Tensor far = Tensor::zeros({2}, DType::f32, third), here = Tensor::zeros({2}, DType::f32, kElsewhere);
    Tensor host = Tensor::zeros({2 * world.size()}, DType::f32, Device{});
    EXPECT_THROW(group->all_reduce(far, Reduce::sum), Error);
    EXPECT_THROW(group->broadcast(far, 0), Error);
    EXPECT_THROW(group->all_gather(host, here), Error);
    EXPECT_THROW(world.all_reduce(here, Reduce::sum), Error);
    group->barrier();
  });
}

TEST(DeviceWorld, IsAnEqualGroupOnTheCpu) {
  on_ranks([](ProcessGroup& world) {
    const auto group = make_device_world(world, Device{});
    EXPECT_EQ(group->rank(), world.rank());
    EXPECT_EQ(group->size(), world.size());
    DeviceCollectives(*group, world, Device{}, DeviceCollectives::Order::by_rank).check();
  });
}

}  // namespace
}  // namespace switchyard
