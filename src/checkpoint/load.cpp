#include <algorithm>
#include <map>
#include <set>

#include "checkpoint/agreement.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/hdf5_file.h"
#include "checkpoint/integrity.h"
#include "tensor/kernels.h"

namespace switchyard {
namespace {

using Index = std::map<std::string, std::size_t>;  // where each name stands among the checkpoint's tensors

Index index_of(const Checkpoint& checkpoint) {
  Index index;
  for (std::size_t i = 0; i < checkpoint.tensors.size(); ++i) index[checkpoint.tensors[i].name] = i;
  return index;
}

// "; 7 missing: a, b, c, d, e, …", or nothing.
std::string list_some(const std::vector<std::string>& names, const char* what) {
  if (names.empty()) return "";
  std::string words = text("; ", names.size(), ' ', what, ": ");
  for (std::size_t i = 0; i < std::min<std::size_t>(5, names.size()); ++i) words += (i ? ", " : "") + names[i];
  return words + (names.size() > 5 ? ", …" : "");
}

// The checkpoint's tensors that no rank asks for. One character a tensor and rank travels.
std::vector<std::string> unread_tensors(const Checkpoint& checkpoint, const Index& index,
                                        const std::vector<LogicalTensor>& into, ProcessGroup& world) {
  std::string wanted(checkpoint.tensors.size(), '-');
  for (const LogicalTensor& tensor : into)
    if (const auto found = index.find(tensor.name); found != index.end()) wanted[found->second] = 'x';
  std::string by_any = wanted;
  for (const std::string& other : all_gather_text(world, wanted))
    for (std::size_t i = 0; i < other.size(); ++i)
      if (other[i] == 'x') by_any[i] = 'x';
  std::vector<std::string> names;
  for (std::size_t i = 0; i < by_any.size(); ++i)
    if (by_any[i] == '-') names.push_back(checkpoint.tensors[i].name);
  return names;
}

void require_match(const Checkpoint& checkpoint, const Index& index, const std::vector<LogicalTensor>& into,
                   const std::vector<std::string>& unread) {
  std::vector<std::string> missing, different;
  std::set<std::string> seen;
  for (const LogicalTensor& tensor : into) {
    SY_CHECK(tensor.local, tensor.name, ": an empty tensor to load into");
    if (!seen.insert(tensor.name).second) continue;
    const auto found = index.find(tensor.name);
    if (found == index.end()) {
      missing.push_back(tensor.name);
      continue;
    }
    const StoredTensor& stored = checkpoint.tensors[found->second];
    if (stored.shape != tensor.global_shape || stored.dtype != tensor.local.dtype())
      different.push_back(text(tensor.name, " is ", stored.dtype, ' ', stored.shape, ", wanted ", tensor.local.dtype(),
                               ' ', tensor.global_shape));
  }
  SY_REQUIRE(missing.empty() && different.empty() && unread.empty(), Fault::checkpoint, checkpoint.path.string(),
             ": does not fit this model", list_some(missing, "missing"), list_some(unread, "not of this model"),
             list_some(different, "of another shape or type"));
}

// One dataset's share of one wanted slice.
struct Piece {
  const StoredSlice* slice;
  Box part;
  LogicalTensor* tensor;
  Tensor* host;
};

void read_slices(const Checkpoint& checkpoint, const Index& index, std::vector<LogicalTensor>& into) {
  std::vector<Tensor> hosts;
  for (const LogicalTensor& tensor : into)
    hosts.push_back(tensor.local.device() == Device{}
                        ? tensor.local
                        : Tensor::empty(tensor.local.shape(), tensor.local.dtype(), Device{}));
  std::map<std::string, std::vector<Piece>> pieces;  // by file, so that each is opened once
  for (std::size_t i = 0; i < into.size(); ++i) {
    const Box region{into[i].origin, into[i].local.shape()};
    std::int64_t elements = 0;
    for (const StoredSlice& slice : checkpoint.tensors[index.at(into[i].name)].slices)
      if (const auto part = intersect(slice.box, region)) {
        pieces[slice.file].push_back({&slice, *part, &into[i], &hosts[i]});
        elements += part->shape.numel();
      }
    SY_CHECK(elements == region.shape.numel(), into[i].name, ": a slice ", region.shape, " that is not within ",
             into[i].global_shape);
  }
  for (auto& [name, parts] : pieces) {
    Hdf5File file = Hdf5File::open(checkpoint.path / name);
    for (Piece& p : parts) file.read(*p.slice, p.part, *p.host, {p.tensor->origin, p.tensor->local.shape()});
  }
  for (std::size_t i = 0; i < into.size(); ++i)
    if (into[i].local.device() != Device{}) kernels(into[i].local.device()).copy(into[i].local, hosts[i]);
}

TrainingState fill(const Checkpoint& checkpoint, std::vector<LogicalTensor>& into, ProcessGroup& world, Unread unread) {
  const Index index = index_of(checkpoint);
  auto extra = unread_tensors(checkpoint, index, into, world);
  if (unread == Unread::allow) extra.clear();
  all_or_fail(world, [&] { require_match(checkpoint, index, into, extra); });
  all_or_fail(world, [&] { read_slices(checkpoint, index, into); });
  return checkpoint.state;
}

}  // namespace

TrainingState load_checkpoint(const std::filesystem::path& path, std::vector<LogicalTensor>& into, ProcessGroup& world,
                              Unread unread) {
  return fill(read_intact(path, world), into, world, unread);
}

TrainingState load_checkpoint(const Found& found, std::vector<LogicalTensor>& into, ProcessGroup& world,
                              Unread unread) {
  return fill(found, into, world, unread);
}

}  // namespace switchyard
