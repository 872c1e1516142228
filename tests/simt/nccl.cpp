// NCCL's stand-in: the ranks are threads of this process, which meet by unique id. As in NCCL with blocking = 0, a call
// comes back before its work is on the stream, and ncclCommGetAsyncError tells when it is. A collective is done by the
// last of its ranks whose stream has come to it. Sums go round the ring from a rank that depends on the element, so
// that nobody can rely on their order.
#include <nccl.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "simt/guarded.h"
#include "simt/nccl_faults.h"
#include "simt/streams.h"
#include "tensor/dtype.h"

namespace {

enum class Kind { all_reduce, reduce_scatter, broadcast, all_gather, send, receive };

// One call. Its ranks agree in what `same` holds.
struct Call {
  Kind kind;
  const std::byte* from;
  std::byte* to;
  std::size_t count;
  ncclDataType_t type;
  int argument;  // operation, root or peer
  // of the group of calls that it belongs to
  ncclComm* comm = nullptr;
  std::shared_ptr<simt::Work> work = {};
  std::shared_ptr<int> left = {};  // that are not done

  auto same() const { return std::tuple(kind, count, type, argument); }
  std::size_t bytes() const { return count * (type == ncclUint8 ? 1 : type == ncclBfloat16 ? 2 : 4); }
};

struct Clique {
  std::vector<ncclComm*> members;  // null until they come, and when they are gone
  int came = 0;
  std::map<std::uint64_t, std::map<int, Call>> collectives;      // by number and rank
  std::map<std::pair<int, int>, std::deque<Call>> sent, wanted;  // by sender and receiver
};

}  // namespace

struct ncclComm {
  std::shared_ptr<Clique> clique;
  int rank;
  ncclResult_t error = ncclSuccess;
  int polls = 0;  // until what was issued is on its stream
  std::uint64_t next = 0;
  std::vector<std::pair<cudaStream_t, std::shared_ptr<simt::Work>>> issued;
  std::set<std::shared_ptr<simt::Work>> open;
};

namespace {

constexpr int kPolls = 3;

// Guarded by lock_streams().
std::map<std::uint64_t, std::shared_ptr<Clique>>& cliques() {
  static auto* all = new std::map<std::uint64_t, std::shared_ptr<Clique>>;
  return *all;
}
std::set<ncclComm*>& live() {
  static auto* all = new std::set<ncclComm*>;
  return *all;
}
std::map<int, ncclResult_t> failures;  // by rank
std::uint64_t last_id = 0;

struct Grouped {
  ncclComm* comm;
  cudaStream_t stream;
  Call call;
};
thread_local int depth = 0;
thread_local std::vector<Grouped> grouped;

void require_live(ncclComm* comm) {
  if (live().contains(comm)) return;
  std::fprintf(stderr, "NCCL's stand-in: a communicator is used that is destroyed or aborted\n");
  std::abort();
}

void finish(Call& call) {
  if (--*call.left > 0) return;
  call.comm->open.erase(call.work);
  simt::end(call.work);
}

void copy(std::byte* to, const void* from, std::size_t bytes) {
  if (bytes > 0) std::memmove(to, from, bytes);
}

float combine(float a, float b, int op) { return op == ncclSum ? a + b : std::fmax(a, b); }  // drops NaN, as NCCL does
std::int32_t combine(std::int32_t a, std::int32_t b, int op) { return op == ncclSum ? a + b : std::max(a, b); }

// Each rank's block, rounded after each addition.
template <class T>
void reduce_scatter(std::map<int, Call>& calls) {
  const std::size_t n = calls.size(), count = calls.at(0).count;
  for (auto& [rank, call] : calls)
    for (std::size_t i = 0; i < count; ++i) {
      T result{};
      for (std::size_t step = 0; step < n; ++step) {
        const auto* from = reinterpret_cast<const T*>(calls.at(int((i / 4 + 1 + step) % n)).from);
        const T part = from[std::size_t(rank) * count + i];
        result = step == 0 ? part : T(float(result) + float(part));
      }
      std::memcpy(call.to + i * sizeof(T), &result, sizeof(T));
    }
}

template <class T>
void all_reduce(std::map<int, Call>& calls) {
  const std::size_t n = calls.size(), count = calls.at(0).count;
  std::vector<T> result(count);
  for (std::size_t i = 0; i < count; ++i)
    for (std::size_t step = 0; step < n; ++step) {
      const T part = reinterpret_cast<const T*>(calls.at(int((i / 4 + 1 + step) % n)).from)[i];
      result[i] = step == 0 ? part : combine(result[i], part, calls.at(0).argument);
    }
  for (auto& [rank, call] : calls) copy(call.to, result.data(), count * sizeof(T));
}

void carry_out(std::map<int, Call>& calls) {
  const Call& first = calls.at(0);
  switch (first.kind) {
    case Kind::all_reduce:
      first.type == ncclFloat32 ? all_reduce<float>(calls) : all_reduce<std::int32_t>(calls);
      break;
    case Kind::reduce_scatter:
      first.type == ncclFloat32 ? reduce_scatter<float>(calls) : reduce_scatter<switchyard::bf16>(calls);
      break;
    case Kind::broadcast:
      for (auto& [rank, call] : calls) copy(call.to, calls.at(first.argument).from, first.bytes());
      break;
    case Kind::all_gather:
      for (auto& [rank, call] : calls)
        for (auto& [other, part] : calls) copy(call.to + std::size_t(other) * part.bytes(), part.from, part.bytes());
      break;
    case Kind::send:
    case Kind::receive: break;
  }
}

// The rank's stream has come to this call.
void arrive(const Call& call) {
  const simt::DeviceAccess access;
  ncclComm& comm = *call.comm;
  Clique& clique = *comm.clique;
  if (call.kind == Kind::send || call.kind == Kind::receive) {
    const auto route =
        call.kind == Kind::send ? std::pair(comm.rank, call.argument) : std::pair(call.argument, comm.rank);
    (call.kind == Kind::send ? clique.sent : clique.wanted)[route].push_back(call);
    auto &sent = clique.sent[route], &wanted = clique.wanted[route];
    if (sent.empty() || wanted.empty()) return;
    Call from = sent.front(), to = wanted.front();
    sent.pop_front();
    wanted.pop_front();
    if (from.bytes() != to.bytes()) {
      comm.error = ncclInvalidUsage;
      return;
    }
    copy(to.to, from.from, from.bytes());
    finish(from);
    finish(to);
    return;
  }
  const std::uint64_t number = comm.next++;
  auto& calls = clique.collectives[number];
  calls.emplace(comm.rank, call);
  if (calls.size() < clique.members.size()) return;
  auto all = std::move(calls);
  clique.collectives.erase(number);
  if (!std::ranges::all_of(all, [&](const auto& c) { return c.second.same() == call.same(); })) {
    for (ncclComm* member : clique.members)
      if (member) member->error = ncclInvalidUsage;
    return;
  }
  carry_out(all);
  for (auto& [rank, done] : all) finish(done);
}

// With the lock held: what one group of calls asked of one communicator becomes work of its stream.
ncclResult_t issue(ncclComm* comm, cudaStream_t stream, std::vector<Call> calls) {
  const auto left = std::make_shared<int>(int(calls.size()));
  ncclResult_t error = ncclSuccess;
  if (const auto failure = failures.find(comm->rank); failure != failures.end()) {
    error = failure->second;
    failures.erase(failure);
  }
  const auto work = std::make_shared<simt::Work>();
  work->begin = [comm, left, error, calls](const std::shared_ptr<simt::Work>& self) {
    if (error) {
      comm->error = error;
      return;
    }
    for (Call call : calls) {
      call.comm = comm;
      call.work = self;
      call.left = left;
      arrive(call);
    }
  };
  comm->open.insert(work);
  comm->issued.emplace_back(stream, work);
  comm->polls = kPolls;
  return ncclInProgress;
}

ncclResult_t add(ncclComm* comm, cudaStream_t stream, const Call& call) {
  grouped.push_back({comm, stream, call});
  if (depth > 0) return ncclSuccess;
  ++depth;
  return ncclGroupEnd();
}

}  // namespace

namespace simt {

void fail_next_collective(int rank, ncclResult_t error) {
  const auto lock = lock_streams();
  failures[rank] = error;
}

int live_communicators() {
  const auto lock = lock_streams();
  return int(live().size());
}

}  // namespace simt

const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclRemoteError ? "another rank is gone" : result == ncclSystemError ? "a system error" : "an error";
}
const char* ncclGetLastError(ncclComm_t) { return "no details"; }

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  const auto lock = simt::lock_streams();
  ++last_id;
  *id = {};
  std::memcpy(id->internal, &last_id, sizeof(last_id));
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank, ncclConfig_t* config) {
  if (config->blocking != 0) return ncclInvalidUsage;
  const auto lock = simt::lock_streams();
  std::uint64_t number = 0;
  std::memcpy(&number, id.internal, sizeof(number));
  std::shared_ptr<Clique>& clique = cliques()[number];
  if (!clique) clique = std::make_shared<Clique>();
  clique->members.resize(std::size_t(ranks));
  *comm = new ncclComm{.clique = clique, .rank = rank, .issued = {}, .open = {}};
  clique->members[std::size_t(rank)] = *comm;
  ++clique->came;
  live().insert(*comm);
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  const auto lock = simt::lock_streams();
  require_live(comm);
  *error = comm->error;
  if (comm->error) return ncclSuccess;
  if (comm->clique->came < std::ssize(comm->clique->members) || (comm->polls > 0 && --comm->polls > 0)) {
    *error = ncclInProgress;
    return ncclSuccess;
  }
  for (const auto& [stream, work] : std::exchange(comm->issued, {})) simt::put(stream, work);
  *error = comm->error;
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  const auto lock = simt::lock_streams();
  require_live(comm);
  comm->polls = kPolls;
  return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  const auto lock = simt::lock_streams();
  require_live(comm);
  live().erase(comm);
  comm->clique->members[std::size_t(comm->rank)] = nullptr;
  delete comm;
  return ncclSuccess;
}

// What the others wait for with this rank ends in an error there.
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  const auto lock = simt::lock_streams();
  require_live(comm);
  live().erase(comm);
  Clique& clique = *comm->clique;
  clique.members[std::size_t(comm->rank)] = nullptr;
  for (ncclComm* other : clique.members)
    if (other && !other->error) other->error = ncclRemoteError;
  for (auto& [number, calls] : clique.collectives) calls.erase(comm->rank);
  for (auto* routes : {&clique.sent, &clique.wanted})
    for (auto& [route, calls] : *routes)
      if (route.first == comm->rank || route.second == comm->rank) calls.clear();
  const auto open = comm->open;
  for (const auto& work : open) {
    work->begun = true;
    simt::end(work);
  }
  delete comm;
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() { return ++depth, ncclSuccess; }

ncclResult_t ncclGroupEnd() {
  if (--depth > 0) return ncclSuccess;
  const auto lock = simt::lock_streams();
  const std::vector<Grouped> all = std::exchange(grouped, {});
  if (all.empty()) return ncclSuccess;
  std::vector<Call> calls;
  for (const Grouped& g : all) {
    require_live(g.comm);
    if (g.comm != all[0].comm || g.stream != all[0].stream) return ncclInvalidUsage;  // not needed so far
    calls.push_back(g.call);
  }
  return issue(all[0].comm, all[0].stream, std::move(calls));
}

ncclResult_t ncclAllReduce(const void* from, void* to, std::size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
  return add(comm, stream,
             {Kind::all_reduce, static_cast<const std::byte*>(from), static_cast<std::byte*>(to), count, type, op});
}
ncclResult_t ncclReduceScatter(const void* from, void* to, std::size_t count, ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t stream) {
  return add(comm, stream,
             {Kind::reduce_scatter, static_cast<const std::byte*>(from), static_cast<std::byte*>(to), count, type, op});
}
ncclResult_t ncclBroadcast(const void* from, void* to, std::size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
  return add(comm, stream,
             {Kind::broadcast, static_cast<const std::byte*>(from), static_cast<std::byte*>(to), count, type, root});
}
ncclResult_t ncclAllGather(const void* from, void* to, std::size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
  return add(comm, stream,
             {Kind::all_gather, static_cast<const std::byte*>(from), static_cast<std::byte*>(to), count, type, 0});
}
ncclResult_t ncclSend(const void* from, std::size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return add(comm, stream, {Kind::send, static_cast<const std::byte*>(from), nullptr, count, type, peer});
}
ncclResult_t ncclRecv(void* to, std::size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return add(comm, stream, {Kind::receive, nullptr, static_cast<std::byte*>(to), count, type, peer});
}
