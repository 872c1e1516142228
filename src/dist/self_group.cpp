#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "dist/process_group.h"

namespace switchyard {
namespace {

// Nobody else to hear from: sums are done already, and what is sent arrives here.
class SelfGroup final : public ProcessGroup {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void barrier() override {}
  [[noreturn]] void abort(int exit_code) override {
    std::fflush(nullptr);
    std::_Exit(exit_code);
  }

 private:
  void do_all_reduce(Tensor&, Reduce) override {}
  void do_broadcast(Tensor&, int) override {}
  void do_all_gather(Tensor& out, const Tensor& in) override {
    std::memcpy(out.bytes(), in.bytes(), in.size_in_bytes());
  }
  void do_reduce_scatter(Tensor& out, const Tensor& in) override { do_all_gather(out, in); }
  void do_all_to_all(Tensor& out, std::span<const int> recv, const Tensor& in, std::span<const int> send) override {
    SY_CHECK(recv[0] == send[0], "all_to_all: rank 0 sends itself ", send[0], " rows and expects ", recv[0]);
    std::memcpy(out.bytes(), in.bytes(), in.size_in_bytes());
  }
  std::unique_ptr<ProcessGroup> do_split(int) override { return make_self_group(); }
};

}  // namespace

std::unique_ptr<ProcessGroup> make_self_group() { return std::make_unique<SelfGroup>(); }

}  // namespace switchyard
