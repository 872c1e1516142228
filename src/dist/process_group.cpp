#include "dist/process_group.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "dist/ordered_reduce.h"

namespace switchyard {
namespace {

void check_carried(const ProcessGroup& group, const Tensor& x, const char* call) {
  SY_CHECK(x, call, ": got an empty tensor");
  SY_CHECK(group.carries(x.device()), call, ": this group does not carry tensors on ", x.device());
}

void check_all_reduce(const ProcessGroup& group, const Tensor& x) {
  check_carried(group, x, "all_reduce");
  SY_CHECK(x.dtype() == DType::f32 || x.dtype() == DType::i32, "all_reduce: f32 or i32, got ", x.dtype());
}

void check_both(const ProcessGroup& group, const Tensor& out, const Tensor& in, const char* call) {
  check_carried(group, out, call);
  check_carried(group, in, call);
  SY_CHECK(out.device() == in.device(), call, ": out is on ", out.device(), ", in on ", in.device());
}

void check_all_gather(const ProcessGroup& group, const Tensor& out, const Tensor& in) {
  check_both(group, out, in, "all_gather");
  SY_CHECK(out.dtype() == in.dtype(), "all_gather: out is ", out.dtype(), ", in is ", in.dtype());
  SY_CHECK(out.numel() == group.size() * in.numel(), "all_gather: out is ", out.shape(), " for ", group.size(),
           " times ", in.shape());
}

void check_reduce_scatter(const ProcessGroup& group, const Tensor& out, const Tensor& in) {
  check_both(group, out, in, "reduce_scatter");
  SY_CHECK(out.dtype() == in.dtype() && (in.dtype() == DType::f32 || in.dtype() == DType::bf16),
           "reduce_scatter: f32 or bf16, out is ", out.dtype(), ", in is ", in.dtype());
  SY_CHECK(in.numel() == group.size() * out.numel(), "reduce_scatter: in is ", in.shape(), " for ", group.size(),
           " times ", out.shape());
}

std::int64_t total(std::span<const int> counts) {
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{});
}

void check_rows(const Tensor& x, std::span<const int> counts, const ProcessGroup& group, const char* what) {
  SY_CHECK(std::ssize(counts) == group.size(), "all_to_all: ", what, " has ", counts.size(), " counts for ",
           group.size(), " ranks");
  SY_CHECK(std::ranges::all_of(counts, [](int n) { return n >= 0; }), "all_to_all: ", what, " has a negative count");
  SY_CHECK(x.shape().rank() >= 1 && x.dim(0) == total(counts), "all_to_all: ", what, " counts ", total(counts),
           " rows, its tensor is ", x.shape());
}

void check_all_to_all(const ProcessGroup& group, const Tensor& out, std::span<const int> recv, const Tensor& in,
                      std::span<const int> send) {
  check_both(group, out, in, "all_to_all");
  check_rows(out, recv, group, "recv");
  check_rows(in, send, group, "send");
  SY_CHECK(out.dtype() == in.dtype() && out.shape() == in.shape().with(0, out.dim(0)), "all_to_all: out is ",
           out.dtype(), ' ', out.shape(), ", in is ", in.dtype(), ' ', in.shape());
}

std::int64_t bytes_of(const Tensor& x) { return static_cast<std::int64_t>(x.size_in_bytes()); }

std::int64_t all_reduce_bytes(const ProcessGroup& group, const Tensor& x) {
  return all_reduce_elements(x.numel(), group.rank(), group.size()) * static_cast<std::int64_t>(size_of(x.dtype()));
}

// The rows that leave this rank.
std::int64_t all_to_all_bytes(const ProcessGroup& group, const Tensor& in, std::span<const int> send) {
  const std::int64_t rows = in.dim(0), kept = send[static_cast<std::size_t>(group.rank())];
  return rows > 0 ? bytes_of(in) / rows * (rows - kept) : 0;
}

}  // namespace

void ProcessGroup::count(Collective collective, std::int64_t bytes) {
  Traffic& traffic = traffic_[static_cast<std::size_t>(collective)];
  ++traffic.calls;
  traffic.bytes += bytes;
}

void ProcessGroup::all_reduce(Tensor& x, Reduce op) {
  check_all_reduce(*this, x);
  count(Collective::all_reduce, all_reduce_bytes(*this, x));
  do_all_reduce(x, op);
}

Wait ProcessGroup::start_all_reduce(Tensor& x, Reduce op) {
  check_all_reduce(*this, x);
  count(Collective::all_reduce, all_reduce_bytes(*this, x));
  return do_start_all_reduce(x, op);
}

void ProcessGroup::broadcast(Tensor& x, int root) {
  check_carried(*this, x, "broadcast");
  SY_CHECK(0 <= root && root < size(), "broadcast: no rank ", root, " among ", size());
  count(Collective::broadcast, rank() == root ? (size() - 1) * bytes_of(x) : 0);
  do_broadcast(x, root);
}

void ProcessGroup::all_gather(Tensor& out, const Tensor& in) {
  check_all_gather(*this, out, in);
  count(Collective::all_gather, bytes_of(out) - bytes_of(in));
  do_all_gather(out, in);
}

Wait ProcessGroup::start_all_gather(Tensor& out, const Tensor& in) {
  check_all_gather(*this, out, in);
  count(Collective::all_gather, bytes_of(out) - bytes_of(in));
  return do_start_all_gather(out, in);
}

void ProcessGroup::reduce_scatter(Tensor& out, const Tensor& in) {
  check_reduce_scatter(*this, out, in);
  count(Collective::reduce_scatter, bytes_of(in) - bytes_of(out));
  do_reduce_scatter(out, in);
}

Wait ProcessGroup::start_reduce_scatter(Tensor& out, const Tensor& in) {
  check_reduce_scatter(*this, out, in);
  count(Collective::reduce_scatter, bytes_of(in) - bytes_of(out));
  return do_start_reduce_scatter(out, in);
}

void ProcessGroup::all_to_all(Tensor& out, std::span<const int> recv, const Tensor& in, std::span<const int> send) {
  check_all_to_all(*this, out, recv, in, send);
  count(Collective::all_to_all, all_to_all_bytes(*this, in, send));
  do_all_to_all(out, recv, in, send);
}

Wait ProcessGroup::start_all_to_all(Tensor& out, std::span<const int> recv, const Tensor& in,
                                    std::span<const int> send) {
  check_all_to_all(*this, out, recv, in, send);
  count(Collective::all_to_all, all_to_all_bytes(*this, in, send));
  return do_start_all_to_all(out, recv, in, send);
}

std::unique_ptr<ProcessGroup> ProcessGroup::split(int colour) {
  SY_CHECK(colour >= 0, "split: colours are 0 or more, got ", colour);
  return do_split(colour);
}

std::vector<std::string> all_gather_text(ProcessGroup& group, const std::string& mine) {
  const std::int64_t n = group.size(), my_length = std::ssize(mine);
  const Tensor my_size = Tensor::of<std::int64_t>({&my_length, 1}, {1}, Device{});
  Tensor sizes = Tensor::empty({n}, DType::i64, Device{}, Memory::communication);
  group.all_gather(sizes, my_size);

  // Every text in a field of the longest one's length.
  const std::span lengths(sizes.data<std::int64_t>(), static_cast<std::size_t>(n));
  const std::int64_t width = std::ranges::max(lengths);
  std::string padded = mine;
  padded.resize(static_cast<std::size_t>(width));
  const Tensor field = Tensor::of<std::uint8_t>({reinterpret_cast<const std::uint8_t*>(padded.data()), padded.size()},
                                                {width}, Device{});
  Tensor fields = Tensor::empty({n, width}, DType::u8, Device{}, Memory::communication);
  group.all_gather(fields, field);

  std::vector<std::string> texts;
  for (std::int64_t r = 0; r < n; ++r)
    texts.emplace_back(reinterpret_cast<const char*>(fields.bytes()) + r * width,
                       static_cast<std::size_t>(lengths[static_cast<std::size_t>(r)]));
  return texts;
}

std::string broadcast_text(ProcessGroup& group, const std::string& mine, int root) {
  std::int64_t length = std::ssize(mine);
  Tensor size = Tensor::of<std::int64_t>({&length, 1}, {1}, Device{});
  group.broadcast(size, root);
  length = *size.data<std::int64_t>();

  Tensor bytes = Tensor::empty({length}, DType::u8, Device{}, Memory::communication);
  if (group.rank() == root) std::memcpy(bytes.bytes(), mine.data(), mine.size());
  group.broadcast(bytes, root);
  return {reinterpret_cast<const char*>(bytes.bytes()), static_cast<std::size_t>(length)};
}

}  // namespace switchyard
