#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <limits>
#include <numeric>
#include <thread>
#include <vector>

#include "dist/mpi/watch.h"
#include "dist/ordered_reduce.h"
#include "dist/process_group.h"

namespace switchyard {
namespace {

using mpi::require, mpi::Session, mpi::Watch;

// A datatype of exactly `bytes` bytes, as MPI counts elements with int; the next one lies `stride` bytes further.
class Block {
 public:
  explicit Block(std::int64_t bytes) : Block(bytes, bytes) {}
  Block(std::int64_t bytes, std::int64_t stride) {
    constexpr int kPiece = 1 << 30;
    MPI_Datatype piece = MPI_DATATYPE_NULL;
    require(MPI_Type_contiguous(kPiece, MPI_BYTE, &piece), "MPI_Type_contiguous");
    const std::int64_t pieces = bytes / kPiece;
    const int lengths[] = {static_cast<int>(pieces), static_cast<int>(bytes % kPiece)};
    const MPI_Aint places[] = {0, pieces * kPiece};
    const MPI_Datatype types[] = {piece, MPI_BYTE};
    MPI_Datatype packed = MPI_DATATYPE_NULL;
    require(MPI_Type_create_struct(2, lengths, places, types, &packed), "MPI_Type_create_struct");
    require(MPI_Type_create_resized(packed, 0, stride, &type_), "MPI_Type_create_resized");
    require(MPI_Type_commit(&type_), "MPI_Type_commit");
    require(MPI_Type_free(&packed), "MPI_Type_free");
    require(MPI_Type_free(&piece), "MPI_Type_free");
  }
  ~Block() { MPI_Type_free(&type_); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  MPI_Datatype type() const { return type_; }

 private:
  MPI_Datatype type_ = MPI_DATATYPE_NULL;
};

// Where each rank's rows begin.
std::vector<int> starts(std::span<const int> counts) {
  std::vector<int> at;
  std::int64_t next = 0;
  for (int n : counts) {
    SY_CHECK(next <= std::numeric_limits<int>::max(), "all_to_all: more than 2^31 rows");
    at.push_back(static_cast<int>(next));
    next += n;
  }
  return at;
}

Tensor ints(std::span<const int> values) { return Tensor::of(values, {std::ssize(values)}, Device{}); }

std::int64_t bytes_of(const Tensor& x) { return static_cast<std::int64_t>(x.size_in_bytes()); }

// The numbers in the world of a communicator's ranks.
std::vector<int> ranks_in_world(MPI_Comm comm) {
  MPI_Group world = MPI_GROUP_NULL, group = MPI_GROUP_NULL;
  int size = 0;
  require(MPI_Comm_group(MPI_COMM_WORLD, &world), "MPI_Comm_group");
  require(MPI_Comm_group(comm, &group), "MPI_Comm_group");
  require(MPI_Group_size(group, &size), "MPI_Group_size");
  std::vector<int> here(static_cast<std::size_t>(size)), there(here);
  std::iota(here.begin(), here.end(), 0);
  require(MPI_Group_translate_ranks(group, size, here.data(), world, there.data()), "MPI_Group_translate_ranks");
  MPI_Group_free(&group);
  MPI_Group_free(&world);
  return there;
}

// Every wait for other ranks is the watch's: MPI's calls are begun and tested, never left to block.
class MpiGroup final : public ProcessGroup {
 public:
  // Takes the communicator over. `path` names the group (GroupName).
  MpiGroup(MPI_Comm comm, std::shared_ptr<Watch> watch, const std::string& path)
      : comm_(comm), watch_(std::move(watch)), is_world_(path == kWorld) {
    require(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    require(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
    require(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
    id_ = watch_->journal().join({path, ranks_in_world(comm_)});
  }
  // Freeing is collective, and the others do not take part when this rank unwinds. The world's ranks leave together,
  // so that a rank that does not come is found by the watch and not by MPI_Finalize.
  ~MpiGroup() override {
    if (std::uncaught_exceptions() != exceptions_at_birth_) {
      if (is_world_) Session::get().desert();
      return;
    }
    if (is_world_) {
      try {
        meet(Collective::leave);
      } catch (const Error& error) {
        if (rank_ > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1500));  // rank 0 may say it for all
        std::fprintf(stderr, "error: rank %d: %s\n", rank_, error.what());
        mpi::abort(static_cast<int>(error.fault()));
      }
    }
    MPI_Comm_free(&comm_);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void barrier() override { meet(Collective::barrier); }
  void set_timeout(double seconds) override { watch_->set_timeout(seconds); }
  [[noreturn]] void abort(int exit_code) override { mpi::abort(exit_code); }

  static constexpr const char* kWorld = "world";

 private:
  static constexpr std::int64_t kPieceBytes = 4 << 20;

  void meet(Collective collective) {
    Watch::Visit visit(*watch_, id_, {collective}, {});
    visit.run("MPI_Ibarrier", [&](MPI_Request* request) { return MPI_Ibarrier(comm_, request); });
  }

  // Every rank reduces a share of the tensor, in rank order, and then all gather the shares. In pieces, so that the
  // scratch for the others' parts stays small.
  void do_all_reduce(Tensor& x, Reduce op) override {
    const auto width = static_cast<std::int64_t>(size_of(x.dtype()));
    const std::int64_t piece = std::min(x.numel(), kPieceBytes / width);
    Tensor scratch = Tensor::empty({piece + size_}, x.dtype(), Device{}, Memory::communication);
    Watch::Visit visit(*watch_, id_, Call::all_reduce(x, op), {x, scratch});
    for (std::int64_t begin = 0; begin < x.numel(); begin += piece)
      reduce_piece(x.bytes() + begin * width, std::min(piece, x.numel() - begin), x.dtype(), op, scratch.bytes(),
                   visit);
  }

  void reduce_piece(std::byte* x, std::int64_t n, DType dtype, Reduce op, std::byte* scratch, Watch::Visit& visit) {
    const auto width = static_cast<std::int64_t>(size_of(dtype));
    const auto ranks = static_cast<std::size_t>(size_);
    const auto me = static_cast<std::size_t>(rank_);
    std::vector<int> counts(ranks), places(ranks);  // of the shares, in bytes
    for (std::size_t r = 0; r < ranks; ++r) {
      const Share share = share_of(n, static_cast<int>(r), size_);
      counts[r] = static_cast<int>(share.count() * width);
      places[r] = static_cast<int>(share.begin * width);
    }
    // My own part is where it should be already.
    std::vector<int> send(counts), recv(ranks, counts[me]), recv_places(ranks);
    send[me] = recv[me] = 0;
    for (std::size_t r = 0; r < ranks; ++r) recv_places[r] = static_cast<int>(r) * counts[me];
    visit.run("MPI_Ialltoallv", [&](MPI_Request* request) {
      return MPI_Ialltoallv(x, send.data(), places.data(), MPI_BYTE, scratch, recv.data(), recv_places.data(), MPI_BYTE,
                            comm_, request);
    });

    std::vector<const std::byte*> parts;
    for (std::size_t r = 0; r < ranks; ++r) parts.push_back(r == me ? x + places[me] : scratch + recv_places[r]);
    reduce_in_order(x + places[me], parts, counts[me] / width, dtype, op);
    visit.run("MPI_Iallgatherv", [&](MPI_Request* request) {
      return MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, x, counts.data(), places.data(), MPI_BYTE, comm_,
                             request);
    });
  }

  void do_broadcast(Tensor& x, int root) override {
    const Block block(bytes_of(x));
    Watch::Visit visit(*watch_, id_, Call::broadcast(x, root), {x});
    visit.run("MPI_Ibcast",
              [&](MPI_Request* request) { return MPI_Ibcast(x.bytes(), 1, block.type(), root, comm_, request); });
  }

  void do_all_gather(Tensor& out, const Tensor& in) override {
    const Block block(bytes_of(in));
    Watch::Visit visit(*watch_, id_, Call::all_gather(in), {out, in});
    visit.run("MPI_Iallgather", [&](MPI_Request* request) {
      return MPI_Iallgather(in.bytes(), 1, block.type(), out.bytes(), 1, block.type(), comm_, request);
    });
  }

  // In pieces of the result likewise.
  void do_reduce_scatter(Tensor& out, const Tensor& in) override {
    const auto width = static_cast<std::int64_t>(size_of(in.dtype()));
    const std::int64_t piece = std::min(out.numel(), kPieceBytes / width / size_ + 1);
    Tensor scratch = Tensor::empty({size_ * piece}, in.dtype(), Device{}, Memory::communication);
    Watch::Visit visit(*watch_, id_, Call::reduce_scatter(in), {in, scratch});
    for (std::int64_t begin = 0; begin < out.numel(); begin += piece) {
      const std::int64_t n = std::min(piece, out.numel() - begin);
      const Block sent(n * width, out.numel() * width), received(n * width);
      visit.run("MPI_Ialltoall", [&](MPI_Request* request) {
        return MPI_Ialltoall(in.bytes() + begin * width, 1, sent.type(), scratch.bytes(), 1, received.type(), comm_,
                             request);
      });
      std::vector<const std::byte*> parts;
      for (int r = 0; r < size_; ++r) parts.push_back(scratch.bytes() + r * n * width);
      reduce_in_order(out.bytes() + begin * width, parts, n, out.dtype(), Reduce::sum);
    }
  }

  void do_all_to_all(Tensor& out, std::span<const int> recv, const Tensor& in, std::span<const int> send) override {
    do_start_all_to_all(out, recv, in, send)();
  }

  Wait do_start_all_to_all(Tensor& out, std::span<const int> recv, const Tensor& in,
                           std::span<const int> send) override {
    const Block row(in.shape().with(0, 1).numel() * static_cast<std::int64_t>(size_of(in.dtype())));
    // MPI reads its own copies until the end.
    const Tensor sends = ints(send), sends_at = ints(starts(send)), receives = ints(recv),
                 receives_at = ints(starts(recv));
    const auto visit = std::make_shared<Watch::Visit>(*watch_, id_, Call::all_to_all(in),
                                                      std::vector{out, in, sends, sends_at, receives, receives_at});
    visit->start("MPI_Ialltoallv", [&](MPI_Request* request) {
      return MPI_Ialltoallv(in.bytes(), sends.data<int>(), sends_at.data<int>(), row.type(), out.bytes(),
                            receives.data<int>(), receives_at.data<int>(), row.type(), comm_, request);
    });
    return [visit] { visit->finish(); };
  }

  // MPI splits only in a blocking call, which all enter together and so soon leave.
  std::unique_ptr<ProcessGroup> do_split(int colour) override {
    meet(Collective::split);
    MPI_Comm part = MPI_COMM_NULL;
    require(MPI_Comm_split(comm_, colour, rank_, &part), "MPI_Comm_split");
    const Journal& journal = watch_->journal();
    return std::make_unique<MpiGroup>(part, watch_,
                                      text(journal.name(id_).path, '/', journal.reached(id_), ':', colour));
  }

  MPI_Comm comm_;
  std::shared_ptr<Watch> watch_;
  bool is_world_;
  int id_ = 0;  // in the watch's journal
  int rank_ = 0, size_ = 0;
  int exceptions_at_birth_ = std::uncaught_exceptions();
};

// Whether a launcher started this process; each names the ranks in the environment: Open MPI, PMIx (srun, PRRTE), PMI
// (MPICH, Intel MPI, srun).
bool is_launched() {
  constexpr const char* kNames[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"};
  return std::ranges::any_of(kNames, [](const char* name) { return std::getenv(name) != nullptr; });
}

}  // namespace

std::unique_ptr<ProcessGroup> make_mpi_world() {
  if (!is_launched()) return make_self_group();
  Session::get();
  MPI_Comm comm = MPI_COMM_NULL;
  require(MPI_Comm_dup(MPI_COMM_WORLD, &comm), "MPI_Comm_dup");
  return std::make_unique<MpiGroup>(comm, std::make_shared<Watch>(), MpiGroup::kWorld);
}

}  // namespace switchyard
