#define OMPI_SKIP_MPICXX 1  // the C interface only
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <limits>
#include <vector>

#include "dist/ordered_reduce.h"
#include "dist/process_group.h"

// The one place that knows MPI.
namespace switchyard {
namespace {

void require(int code, const char* call) {
  if (code == MPI_SUCCESS) [[likely]]
    return;
  char reason[MPI_MAX_ERROR_STRING] = "unknown error";
  int length = 0, rank = 0;
  MPI_Error_string(code, reason, &length);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  throw Error(text("rank ", rank, ": ", call, " failed: ", reason), Fault::communication);
}

// MPI in this process, from the first world to the end of the program.
class Session {
 public:
  static Session& get() {
    static Session session;
    return session;
  }

  // An exception is taking this rank out of the job while the others may wait in a collective. MPI_Finalize would wait
  // for them, and they for us; leaving without it makes the launcher stop them.
  void desert() { deserted_ = true; }

  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

 private:
  Session() {
    int initialised = 0, provided = MPI_THREAD_SERIALIZED;
    require(MPI_Initialized(&initialised), "MPI_Initialized");
    if (!initialised) require(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread");
    SY_REQUIRE(provided >= MPI_THREAD_FUNNELED, Fault::communication,
               "this MPI library cannot be used by a program with threads (it offers level ", provided, ")");
    require(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  }
  ~Session() {
    int finalised = 0;
    MPI_Finalized(&finalised);
    if (!deserted_ && !finalised) MPI_Finalize();
  }

  bool deserted_ = false;
};

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

class MpiGroup final : public ProcessGroup {
 public:
  enum class Role { world, part };

  // Takes the communicator over.
  MpiGroup(MPI_Comm comm, Role role) : comm_(comm), role_(role) {
    require(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    require(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
    require(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
  }
  ~MpiGroup() override {
    // Freeing is collective, and the others do not take part when this rank unwinds.
    if (std::uncaught_exceptions() == exceptions_at_birth_)
      MPI_Comm_free(&comm_);
    else if (role_ == Role::world)
      Session::get().desert();
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void barrier() override { require(MPI_Barrier(comm_), "MPI_Barrier"); }
  [[noreturn]] void abort(int exit_code) override {
    std::fflush(nullptr);
    MPI_Abort(MPI_COMM_WORLD, exit_code);
    std::_Exit(exit_code);
  }

 private:
  static constexpr std::int64_t kPieceBytes = 4 << 20;

  // Every rank reduces a share of the tensor, in rank order, and then all gather the shares. In pieces, so that the
  // scratch for the others' parts stays small.
  void do_all_reduce(Tensor& x, Reduce op) override {
    const auto width = static_cast<std::int64_t>(size_of(x.dtype()));
    const std::int64_t piece = std::min(x.numel(), kPieceBytes / width);
    Tensor scratch = Tensor::empty({piece + size_}, x.dtype(), Device{}, Memory::communication);
    for (std::int64_t begin = 0; begin < x.numel(); begin += piece)
      reduce_piece(x.bytes() + begin * width, std::min(piece, x.numel() - begin), x.dtype(), op, scratch.bytes());
  }

  void reduce_piece(std::byte* x, std::int64_t n, DType dtype, Reduce op, std::byte* scratch) {
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
    require(MPI_Alltoallv(x, send.data(), places.data(), MPI_BYTE, scratch, recv.data(), recv_places.data(), MPI_BYTE,
                          comm_),
            "MPI_Alltoallv");

    std::vector<const std::byte*> parts;
    for (std::size_t r = 0; r < ranks; ++r) parts.push_back(r == me ? x + places[me] : scratch + recv_places[r]);
    reduce_in_order(x + places[me], parts, counts[me] / width, dtype, op);
    require(MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, x, counts.data(), places.data(), MPI_BYTE, comm_),
            "MPI_Allgatherv");
  }

  void do_broadcast(Tensor& x, int root) override {
    const Block block(static_cast<std::int64_t>(x.size_in_bytes()));
    require(MPI_Bcast(x.bytes(), 1, block.type(), root, comm_), "MPI_Bcast");
  }

  void do_all_gather(Tensor& out, const Tensor& in) override {
    const Block block(static_cast<std::int64_t>(in.size_in_bytes()));
    require(MPI_Allgather(in.bytes(), 1, block.type(), out.bytes(), 1, block.type(), comm_), "MPI_Allgather");
  }

  // In pieces of the result likewise.
  void do_reduce_scatter(Tensor& out, const Tensor& in) override {
    const auto width = static_cast<std::int64_t>(size_of(in.dtype()));
    const std::int64_t piece = std::min(out.numel(), kPieceBytes / width / size_ + 1);
    Tensor scratch = Tensor::empty({size_ * piece}, in.dtype(), Device{}, Memory::communication);
    for (std::int64_t begin = 0; begin < out.numel(); begin += piece) {
      const std::int64_t n = std::min(piece, out.numel() - begin);
      const Block sent(n * width, out.numel() * width), received(n * width);
      require(MPI_Alltoall(in.bytes() + begin * width, 1, sent.type(), scratch.bytes(), 1, received.type(), comm_),
              "MPI_Alltoall");
      std::vector<const std::byte*> parts;
      for (int r = 0; r < size_; ++r) parts.push_back(scratch.bytes() + r * n * width);
      reduce_in_order(out.bytes() + begin * width, parts, n, out.dtype(), Reduce::sum);
    }
  }

  void do_all_to_all(Tensor& out, std::span<const int> recv, const Tensor& in, std::span<const int> send) override {
    const Block row(in.shape().with(0, 1).numel() * static_cast<std::int64_t>(size_of(in.dtype())));
    require(MPI_Alltoallv(in.bytes(), send.data(), starts(send).data(), row.type(), out.bytes(), recv.data(),
                          starts(recv).data(), row.type(), comm_),
            "MPI_Alltoallv");
  }

  std::unique_ptr<ProcessGroup> do_split(int colour) override {
    MPI_Comm part = MPI_COMM_NULL;
    require(MPI_Comm_split(comm_, colour, rank_, &part), "MPI_Comm_split");
    return std::make_unique<MpiGroup>(part, Role::part);
  }

  MPI_Comm comm_;
  Role role_;
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
  return std::make_unique<MpiGroup>(comm, MpiGroup::Role::world);
}

}  // namespace switchyard
