#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "dist/process_group.h"
#include "grad_check.h"
#include "tensor/kernels.h"

// A group that carries tensors of a device, beside the host group that it was made over: every collective, on tensors
// with the same values.
namespace switchyard::test {

inline bool same_bits(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() && std::memcmp(a.bytes(), b.bytes(), a.size_in_bytes()) == 0;
}

// Rows from rank to rank: uneven, some none; rank 1 sends nothing at all and the last rank receives nothing.
inline int rows_between(int from, int to, int size) {
  return size > 1 && (from == 1 || to == size - 1) ? 0 : (from * 5 + to * 3 + 2) % 4;
}

class DeviceCollectives {
 public:
  // A sum of n parts in (-1, 1) is off by at most (n - 1) roundings of numbers below n: n^2 half units in the last
  // place bound what another order of summation may change. In rank order nothing changes.
  enum class Order { by_rank, any };
  DeviceCollectives(ProcessGroup& group, ProcessGroup& host, Device device, Order order)
      : group_(group),
        host_(host),
        device_(device),
        tolerance_(order == Order::by_rank ? 0 : std::ldexp(group.size() * group.size(), -24)) {}

  void check() {
    for (std::int64_t n : {0, 1, 3, 1000}) sums(random({n}, seed()));
    sums(random({5, 7}, seed()).rows(2, 4));  // memory of others on both sides
    for (std::int64_t n : {0, 1, 37})
      for (DType dtype : {DType::f32, DType::bf16}) sums_of_parts(cast(random({group_.size() * n, 3}, seed()), dtype));
    integers();
    largest_floats();
    for (DType dtype : {DType::f32, DType::bf16}) rows(cast(random({total(true), 3}, seed()), dtype));
    rows(Tensor::of(std::span<const std::int64_t>(std::vector<std::int64_t>(static_cast<std::size_t>(total(true)), 7)),
                    {total(true)}, Device{}));
    for (std::int64_t n : {0, 1, 37}) copies(random({n}, seed()));
    copies(cast(random({2, 3}, seed()), DType::bf16));
    const std::vector<std::uint8_t> bytes{1, 2, 3, static_cast<std::uint8_t>(group_.rank())};
    copies(Tensor::of(std::span<const std::uint8_t>(bytes), {4}, Device{}));
  }

 private:
  unsigned seed() const { return 100 + static_cast<unsigned>(group_.rank()); }
  Tensor on_device(const Tensor& x) const {
    Tensor y = Tensor::empty(x.shape(), x.dtype(), device_);
    kernels(device_).copy(y, x);
    return y;
  }
  Tensor host_copy(const Tensor& x) const {
    Tensor y = Tensor::empty(x.shape(), x.dtype(), Device{});
    kernels(x.device()).copy(y, x);
    return y;
  }

  void sums(const Tensor& mine) {
    Tensor x = on_device(mine), started = on_device(mine), expected = host_copy(mine);
    group_.all_reduce(x, Reduce::sum);
    if (const Wait wait = group_.start_all_reduce(started, Reduce::sum)) wait();
    host_.all_reduce(expected, Reduce::sum);
    if (tolerance_ == 0)
      EXPECT_TRUE(same_bits(host_copy(x), expected)) << "sum of " << x.shape();
    else
      expect_near(host_copy(x), expected, tolerance_);
    EXPECT_TRUE(same_bits(host_copy(x), host_copy(started)));
  }

  // bf16 rounds n - 1 times more, to 2^-8 of numbers below n.
  void sums_of_parts(const Tensor& mine) {
    const Shape part = mine.shape().with(0, mine.dim(0) / group_.size());
    Tensor out = Tensor::empty(part, mine.dtype(), device_), expected = Tensor::empty(part, mine.dtype(), Device{});
    group_.reduce_scatter(out, on_device(mine));
    host_.reduce_scatter(expected, mine);
    const double tolerance = mine.dtype() == DType::f32 ? tolerance_ : std::ldexp(tolerance_, 24 - 8);
    if (tolerance == 0)
      EXPECT_TRUE(same_bits(host_copy(out), expected)) << "reduce_scatter of " << mine.dtype() << ' ' << mine.shape();
    else
      expect_near(cast(host_copy(out), DType::f32), cast(expected, DType::f32), tolerance);
  }

  void integers() {
    for (Reduce op : {Reduce::sum, Reduce::max}) {
      const Tensor mine = ints({3}, {group_.rank(), -group_.rank(), 1 << 24 | group_.rank()});
      Tensor x = on_device(mine), expected = host_copy(mine);
      group_.all_reduce(x, op);
      host_.all_reduce(expected, op);
      EXPECT_TRUE(same_bits(host_copy(x), expected));
    }
  }

  // A NaN is the largest, wherever it comes from.
  void largest_floats() {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const bool first = group_.rank() == 0, last = group_.rank() == group_.size() - 1;
    const Tensor mine = floats({3}, {first ? nan : 1, last ? nan : 1, static_cast<float>(group_.rank())});
    Tensor x = on_device(mine), expected = host_copy(mine);
    group_.all_reduce(x, Reduce::max);
    host_.all_reduce(expected, Reduce::max);
    EXPECT_TRUE(same_bits(host_copy(x), expected));
  }

  std::vector<int> counts(bool sent) const {
    std::vector<int> counts;
    for (int r = 0; r < group_.size(); ++r)
      counts.push_back(sent ? rows_between(group_.rank(), r, group_.size())
                            : rows_between(r, group_.rank(), group_.size()));
    return counts;
  }
  std::int64_t total(bool sent) const {
    const std::vector<int> all = counts(sent);
    return std::accumulate(all.begin(), all.end(), std::int64_t{0});
  }

  void rows(const Tensor& mine) {
    Tensor expected = Tensor::empty(mine.shape().with(0, total(false)), mine.dtype(), Device{});
    Tensor out = Tensor::empty(expected.shape(), mine.dtype(), device_);
    const Tensor in = on_device(mine);
    Tensor started = Tensor::empty(expected.shape(), mine.dtype(), device_);
    group_.all_to_all(out, counts(false), in, counts(true));
    if (const Wait wait = group_.start_all_to_all(started, counts(false), in, counts(true))) wait();
    host_.all_to_all(expected, counts(false), mine, counts(true));
    for (const Tensor& came : {out, started})
      EXPECT_TRUE(same_bits(host_copy(came), expected)) << "all_to_all of " << mine.dtype() << ' ' << mine.shape();
  }

  void copies(const Tensor& mine) {
    for (int root = 0; root < group_.size(); ++root) {
      Tensor x = on_device(mine), expected = host_copy(mine);
      group_.broadcast(x, root);
      host_.broadcast(expected, root);
      EXPECT_TRUE(same_bits(host_copy(x), expected)) << "broadcast of " << mine.dtype() << ' ' << mine.shape();
    }
    Tensor all = Tensor::empty({group_.size(), mine.numel()}, mine.dtype(), device_);
    Tensor expected = Tensor::empty(all.shape(), mine.dtype(), Device{});
    group_.all_gather(all, on_device(mine));
    host_.all_gather(expected, mine);
    EXPECT_TRUE(same_bits(host_copy(all), expected)) << "all_gather of " << mine.dtype() << ' ' << mine.shape();
  }

  ProcessGroup &group_, &host_;
  Device device_;
  double tolerance_;
};

}  // namespace switchyard::test
