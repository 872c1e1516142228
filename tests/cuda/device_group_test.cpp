#include "dist/device_group.h"

#include "cuda/both.h"
#include "dist/device_collectives.h"

namespace switchyard {
namespace {

using test::DeviceCollectives, test::kGpu;

TEST(CudaHostStaged, RanksThatShareAGpuGetTheBitsOfTheHostGroup) {
  for (int ranks : {1, 2, 3})
    run_ranks(ranks, [](ProcessGroup& world) {
      const auto group = make_host_staged_group(world.split(0), kGpu);
      DeviceCollectives(*group, world, kGpu, DeviceCollectives::Order::by_rank).check();
      DeviceCollectives(*group, world, Device{}, DeviceCollectives::Order::by_rank).check();
      const auto part = group->split(world.rank() % 2), host_part = world.split(world.rank() % 2);
      DeviceCollectives(*part, *host_part, kGpu, DeviceCollectives::Order::by_rank).check();
    });
}

// Each rank's kernels run on its own stream, with its own scratch memory, while the others' run too.
TEST(CudaHostStaged, KernelsOfSeveralRanksRunAtOnce) {
  run_ranks(4, [](ProcessGroup& world) {
    const Kernels& k = kernels(kGpu);
    const auto seed = static_cast<unsigned>(world.rank());
    const Tensor host = test::random({3000}, seed);
    Tensor x = to_device(host, kGpu), y = Tensor::zeros({3000}, DType::f32, kGpu);
    Tensor expected = Tensor::zeros({3000}, DType::f32, Device{});
    world.barrier();
    for (int round = 0; round < 5; ++round) {
      k.add(y, x);
      kernels(Device{}).add(expected, host);
    }
    EXPECT_TRUE(test::same_bits(to_device(y, Device{}), expected));
    world.barrier();  // memory goes back when nobody computes
  });
}

// The one kind of group that a single rank needs, with or without NCCL in the build.
TEST(CudaDeviceWorld, OfOneRankNeedsNobody) {
  const auto self = make_self_group();
  const auto world = make_device_world(*self, kGpu);
  DeviceCollectives(*world, *self, kGpu, DeviceCollectives::Order::by_rank).check();
}

}  // namespace
}  // namespace switchyard
