// The NCCL group with ranks as threads, each with a GPU of its own, and the stand-in in NCCL's place.
#include <atomic>
#include <chrono>
#include <thread>

#include "autograd/ops.h"
#include "dist/device_collectives.h"
#include "dist/device_group.h"
#include "dist/exchange.h"
#include "dist/gradients.h"
#include "dist/host.h"
#include "simt/nccl_faults.h"
#include "simt/streams.h"
#include "train/small_run.h"

namespace switchyard {
namespace {

using test::DeviceCollectives, test::expect_near, test::floats, test::same_bits;

constexpr double kSoon = 1;  // seconds; a rank that comes at all comes in this time
constexpr double kLate = 60;

Device gpu_of(const ProcessGroup& world) { return {DeviceType::cuda, world.rank()}; }

void run_nccl_ranks(int ranks, double seconds,
                    const std::function<void(ProcessGroup& group, ProcessGroup& host)>& body) {
  run_ranks(ranks, [&](ProcessGroup& world) {
    const auto group = make_nccl_group(world.split(0), gpu_of(world), seconds);
    body(*group, world);
  });
}

std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::communication);
    return error.what();
  }
  return "no error";
}

void expect_parts(const std::string& what, std::initializer_list<const char*> parts) {
  for (const char* part : parts) EXPECT_NE(what.find(part), std::string::npos) << what << "\nlacks " << part;
}

class Nccl : public testing::Test {
  void TearDown() override { EXPECT_EQ(simt::live_communicators(), 0); }
};

TEST_F(Nccl, CarriesEverythingOnEveryGroup) {
  for (int ranks : {1, 2, 3, 4})
    run_nccl_ranks(ranks, kLate, [](ProcessGroup& group, ProcessGroup& host) {
      DeviceCollectives(group, host, gpu_of(host), DeviceCollectives::Order::any).check();
      DeviceCollectives(group, host, Device{}, DeviceCollectives::Order::by_rank).check();
      const auto part = group.split(host.rank() % 2), host_part = host.split(host.rank() % 2);
      DeviceCollectives(*part, *host_part, gpu_of(host), DeviceCollectives::Order::any).check();
      const auto alone = part->split(host.rank()), host_alone = host.split(host.rank());
      DeviceCollectives(*alone, *host_alone, gpu_of(host), DeviceCollectives::Order::by_rank).check();
      DeviceCollectives(group, host, gpu_of(host), DeviceCollectives::Order::any).check();
      group.barrier();
    });
}

TEST_F(Nccl, AGroupWithoutDeviceTensorsMakesNoCommunicator) {
  run_nccl_ranks(2, kLate, [](ProcessGroup& group, ProcessGroup& host) {
    const auto part = group.split(0);
    Tensor x = floats({1}, {1});
    part->all_reduce(x, Reduce::sum);
    EXPECT_EQ(simt::live_communicators(), 0);
    host.barrier();
  });
}

// A rank's device goes on while what it started waits for the others, and sees the sum after Wait.
TEST_F(Nccl, WhatIsStartedRunsBesideTheDevice) {
  std::atomic<bool> go = false;
  run_nccl_ranks(2, kLate, [&](ProcessGroup& group, ProcessGroup& host) {
    const Device gpu = gpu_of(host);
    Tensor warm = Tensor::zeros({1}, DType::f32, gpu);
    group.all_reduce(warm, Reduce::sum);

    Tensor x = to_device(floats({2}, {1, 2}), gpu), y = to_device(floats({2}, {5, 5}), gpu);
    if (host.rank() == 1)
      while (!go) std::this_thread::yield();
    const Wait wait = group.start_all_reduce(x, Reduce::sum);
    ASSERT_TRUE(wait);
    kernels(gpu).add(y, y);
    expect_near(to_device(y, Device{}), floats({2}, {10, 10}), 0);
    if (host.rank() == 0) {
      expect_near(to_device(x, Device{}), floats({2}, {1, 2}), 0);  // rank 1 is not there yet
      go = true;
    }
    wait();
    kernels(gpu).add(x, x);
    expect_near(to_device(x, Device{}), floats({2}, {4, 8}), 0);
  });
}

// The same of two exchanges of rows, which come in their order.
TEST_F(Nccl, RowsTravelBesideTheDevice) {
  std::atomic<bool> go = false;
  run_nccl_ranks(2, kLate, [&](ProcessGroup& group, ProcessGroup& host) {
    const Device gpu = gpu_of(host);
    EXPECT_TRUE(group.overlaps(gpu));
    EXPECT_FALSE(group.overlaps(Device{}));
    const std::vector<int> one(2, 1);
    const float me = float(host.rank());
    const Tensor in = to_device(floats({2, 1}, {10 * me, 10 * me + 1}), gpu);
    Tensor first = Tensor::zeros({2, 1}, DType::f32, gpu), second = Tensor::zeros({2, 1}, DType::f32, gpu);
    group.all_to_all(first, one, in, one);
    kernels(gpu).zero(first);

    if (host.rank() == 1)
      while (!go) std::this_thread::yield();
    const Wait first_came = group.start_all_to_all(first, one, in, one);
    const Wait second_came = group.start_all_to_all(second, one, first, one);
    Tensor y = to_device(floats({2}, {5, 5}), gpu);
    kernels(gpu).add(y, y);
    expect_near(to_device(y, Device{}), floats({2}, {10, 10}), 0);
    if (host.rank() == 0) {
      expect_near(to_device(first, Device{}), floats({2, 1}, {0, 0}), 0);  // rank 1 is not there yet
      go = true;
    }
    first_came();
    expect_near(to_device(first, Device{}), floats({2, 1}, {me, 10 + me}), 0);
    second_came();
    expect_near(to_device(second, Device{}), to_device(in, Device{}), 0);  // each sent back what it had got
  });
}

TEST_F(Nccl, ARankThatNeverComesIsToldByTheOthers) {
  std::atomic<bool> seen = false;
  run_nccl_ranks(2, kSoon, [&](ProcessGroup& group, ProcessGroup& host) {
    Tensor x = to_device(floats({2}, {1, 2}), gpu_of(host));
    group.all_reduce(x, Reduce::sum);
    if (host.rank() == 0) {
      const auto begin = std::chrono::steady_clock::now();
      const std::string what = error_of([&] { group.all_reduce(x, Reduce::sum); });
      const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - begin;
      expect_parts(what, {"rank 0: waited ", " s in all_reduce(sum) of f32 (2) among 2 ranks", "did not come"});
      EXPECT_GE(waited.count(), kSoon);
      EXPECT_EQ(error_of([&] { group.barrier(); }), what);  // and again on every call
      EXPECT_EQ(error_of([&] { group.split(0); }), what);
      Tensor here = floats({1}, {1});
      EXPECT_EQ(error_of([&] { group.all_reduce(here, Reduce::sum); }), what);
      seen = true;
    } else {
      while (!seen) std::this_thread::yield();
      const std::string what = error_of([&] { group.all_reduce(x, Reduce::sum); });
      expect_parts(what, {"rank 1: ", "another rank is gone"});
    }
  });
}

TEST_F(Nccl, ARankThatNeverJoinsIsToldByTheOthers) {
  run_ranks(2, [&](ProcessGroup& world) {
    auto host = world.split(0);
    ProcessGroup& ranks = *host;
    const auto group = make_nccl_group(std::move(host), gpu_of(world), kSoon);
    if (world.rank() == 0) {
      Tensor x = Tensor::zeros({2, 2}, DType::bf16, gpu_of(world));
      expect_parts(error_of([&] { group->broadcast(x, 1); }),
                   {"rank 0: waited ", " s in broadcast(root 1) of bf16 (2, 2) among 2 ranks"});
    } else {
      broadcast_text(ranks, "", 0);  // hears of the communicator and does not join it
    }
    world.barrier();
  });
}

// The host meets the error at its next call; until then nothing on the GPU waits.
TEST_F(Nccl, AnAsynchronousErrorEndsTheGroupsOfAllRanks) {
  run_nccl_ranks(3, kLate, [&](ProcessGroup& group, ProcessGroup& host) {
    const auto part = group.split(0);
    Tensor x = to_device(floats({2}, {1, 2}), gpu_of(host));
    group.all_reduce(x, Reduce::sum);
    part->all_reduce(x, Reduce::sum);
    host.barrier();
    if (host.rank() == 1) simt::fail_next_collective(1, ncclSystemError);
    host.barrier();
    const std::string what = error_of([&] {
      part->all_reduce(x, Reduce::max);
      part->all_reduce(x, Reduce::sum);
    });
    expect_parts(what, {host.rank() == 1 ? "rank 1: " : "rank", "all_reduce(", "among 3 ranks",
                        host.rank() == 1 ? "a system error" : "another rank is gone"});
    EXPECT_EQ(error_of([&] { group.all_reduce(x, Reduce::sum); }), what);
    host.barrier();
  });
}

// A rank that unwinds leaves nobody waiting, and is the one that is reported.
TEST_F(Nccl, ARankThatFailsEndsTheOthersWait) {
  const auto begin = std::chrono::steady_clock::now();
  const auto run = [] {
    run_nccl_ranks(3, kLate, [&](ProcessGroup& group, ProcessGroup& host) {
      Tensor x = to_device(floats({1}, {1}), gpu_of(host));
      group.all_reduce(x, Reduce::sum);
      if (host.rank() == 2) throw Error("the real reason", Fault::numeric);
      expect_parts(error_of([&] { group.all_reduce(x, Reduce::sum); }), {"another rank is gone"});
    });
  };
  try {
    run();
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "the real reason");
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

TEST_F(Nccl, CountsThatDoNotFitAreAnError) {
  run_nccl_ranks(2, kSoon, [&](ProcessGroup& group, ProcessGroup& host) {
    const std::vector<int> one(2, 1), two(2, 2);
    Tensor in = Tensor::zeros({host.rank() == 0 ? 4 : 2, 3}, DType::f32, gpu_of(host));
    Tensor out = Tensor::zeros({2, 3}, DType::f32, gpu_of(host));
    EXPECT_NE(error_of([&] { group.all_to_all(out, one, in, host.rank() == 0 ? two : one); }), "no error");
    host.barrier();
  });
}

// Buckets on their way while backward and its own collectives go on.
TEST_F(Nccl, GradientBucketsLeaveDuringBackward) {
  for (int ranks : {2, 4})
    run_nccl_ranks(ranks, kLate, [&](ProcessGroup& group, ProcessGroup& host) {
      const Device gpu = gpu_of(host);
      Mesh mesh({.expert = 2}, group);
      Parameters parameters;
      for (unsigned p = 0; p < 9; ++p) {
        const Shape shape{p % 3 == 0 ? 40 : 4, 2};
        const Variable variable(to_device(test::random(shape, p), gpu), true);
        parameters.push_back({.name = text("p", p),
                              .variable = variable,
                              .global_shape = shape,
                              .replicas = p == 4 ? Replicas::expert_data : Replicas::data});
      }
      const auto backward = [&](int batch) {
        for (std::size_t kind : {0, 1, 2}) {
          Variable y(Tensor::zeros(parameters[kind].variable.shape(), DType::f32, gpu));
          Exchange rows{.send = std::vector<int>(std::size_t(mesh.experts->size())), .recv = {}};
          rows.recv = rows.send;
          rows.send[std::size_t(1 - mesh.experts->rank())] = rows.recv[std::size_t(1 - mesh.experts->rank())] =
              int(y.shape()[0]);
          for (std::size_t p = kind; p < parameters.size(); p += 3)
            y = times(Outbound(add(y, parameters[p].variable), {rows}, *mesh.experts).arrive(0), 0.5f);
          y.backward(
              to_device(test::random(y.shape(), unsigned(100 * batch + 10 * host.rank()) + unsigned(kind)), gpu));
        }
      };
      const auto gradients = [&](std::int64_t bucket_bytes, bool early) {
        Shards shards(parameters, mesh, bucket_bytes, Masters::whole, DType::f32);
        GradientBuckets buckets(shards);
        for (Parameter& p : parameters) p.variable.zero_grad();
        backward(0);
        if (early) buckets.arm();
        backward(1);
        buckets.finish();
        std::vector<Tensor> all;
        for (Parameter& p : parameters) all.push_back(to_device(p.variable.grad(), Device{}));
        return all;
      };
      const std::vector<Tensor> expected = gradients(0, false);
      for (std::int64_t bucket_bytes : {0, 128, 1 << 20}) {
        const std::vector<Tensor> actual = gradients(bucket_bytes, true), again = gradients(bucket_bytes, true);
        for (std::size_t p = 0; p < actual.size(); ++p) {
          // n parts below 1, in an order that depends on the place in the bucket
          expect_near(actual[p], expected[p], ranks * ranks * 1.2e-7);
          EXPECT_TRUE(same_bits(actual[p], again[p])) << "the same buckets give the same bits";
        }
      }
    });
}

TEST_F(Nccl, IsUsedWhereEveryRankHasAGpu) {
  for (int ranks : {2, 4}) {
    simt::set_gpu_count(2);
    run_ranks(ranks, [&](ProcessGroup& world) {
      const std::optional<Device> gpu = gpu_of_rank(world);
      ASSERT_EQ(gpu, (Device{DeviceType::cuda, world.rank() % 2}));
      const auto group = make_device_world(world, *gpu);
      DeviceCollectives(*group, world, *gpu,
                        ranks == 2 ? DeviceCollectives::Order::any : DeviceCollectives::Order::by_rank)
          .check();
      world.barrier();
      EXPECT_EQ(simt::live_communicators(), ranks == 2 ? 2 : 0);
      world.barrier();
    });
  }
  simt::set_gpu_count(0);
  run_ranks(2, [&](ProcessGroup& world) { EXPECT_EQ(gpu_of_rank(world), std::nullopt); });
  simt::set_gpu_count(1);
}

// The whole trainer on two ranks, beside two on the CPU: through host memory on one GPU, through NCCL on two.
TEST_F(Nccl, TrainsAsOnTheCpu) {
  for (int gpus : {1, 2}) {
    simt::set_gpu_count(gpus);
    run_ranks(2, [&](ProcessGroup& world) {
      const test::RunDir dir(text("nccl-", gpus), world);
      // Experts everywhere, spread, beside a shared-out optimizer, cut; dense layers cut, with routing groups over both
      // ranks; a stage on each. Spread experts of whole groups take them in two halves through NCCL.
      int number = 0;
      for (const ParallelConfig& parallel : {ParallelConfig{.data = 2},
                                             {.data = 2, .expert = 2},
                                             {.data = 2, .expert = 2, .shard_optimizer = true},
                                             {.data = 1, .tensor = 2, .expert = 2},
                                             {.data = 1, .tensor = 2, .expert_tensor = 2},
                                             {.data = 1, .pipeline = 2},
                                             {.data = 1, .pipeline = 2, .shard_optimizer = true}}) {
        ++number;
        const auto losses = [&](DeviceChoice device) {
          Config config = dir.config(2, 1);
          config.parallel = parallel;
          config.run.device = device;
          config.run.dir += text("-", number, device == DeviceChoice::cpu ? "-cpu" : "-gpu");
          config.moe.dispatch = number % 2 ? Dispatch::exact : Dispatch::automatic;
          config.train.recompute = Recompute::block;
          config.train.micro_batch = parallel.data == 1 ? 1 : 2;
          Trainer trainer(config, world, ProgressStyle::none);
          EXPECT_EQ(trainer.learner().model().parameters()[0].variable.device().type == DeviceType::cuda,
                    device != DeviceChoice::cpu);
          std::vector<double> told;
          for (int i = 0; i < 2; ++i) {
            const StepMetrics m = trainer.step();
            told.insert(told.end(), {m.loss, m.balance_loss, m.z_loss, m.grad_norm, m.drop_fraction});
          }
          return told;
        };
        const std::vector<double> cpu = losses(DeviceChoice::cpu), gpu = losses(DeviceChoice::automatic);
        // f32 rounding of one step, then of a second after AdamW, which divides each gradient by its own size
        for (std::size_t i = 0; i < cpu.size(); ++i) EXPECT_NEAR(gpu[i], cpu[i], 2e-5 * (1 + cpu[i]));
      }
    });
  }
  simt::set_gpu_count(1);
}

// Compute copies that are the gathered values themselves; sums in rank order, of values as they come from the device.
TEST_F(Nccl, ASharedOutOptimizerTrainsToTheSameBitsThroughHostMemory) {
  simt::set_gpu_count(1);
  run_ranks(2, [&](ProcessGroup& world) {
    const test::RunDir dir("nccl-sharded", world);
    const auto train = [&](bool sharded) {
      Config config = dir.config(2, 1, Precision::bf16);
      config.run.device = DeviceChoice::cuda;
      config.parallel.shard_optimizer = sharded;
      config.train.micro_batch = 2;
      config.optim.clip = 0.1;
      Learner learner(config, world);
      std::vector<double> told;
      for (int step = 0; step < 3; ++step) {
        const StepMetrics m = learner.step(step);
        told.insert(told.end(), {m.loss, m.balance_loss, m.z_loss, m.grad_norm});
      }
      return told;
    };
    EXPECT_EQ(train(true), train(false));
  });
}

}  // namespace
}  // namespace switchyard
