#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "dist/consistency.h"
#include "dist/journal.h"

namespace switchyard {
namespace {

constexpr std::size_t kShown = 8;  // parameters of one group

// Two tensors that differ in a single word of eight bytes have different digests: each step is one to one in the word
// and in what came before. Four lanes, so that the processor need not wait for its own product.
std::int64_t digest(const Tensor& x) {
  const Tensor host = to_device(x, Device{});
  constexpr std::size_t kWord = sizeof(std::uint64_t);
  std::uint64_t lanes[4] = {1, 2, 3, 4};
  const auto mix = [](std::uint64_t h, std::uint64_t word) {
    h = (h ^ word) * 0x9e3779b97f4a7c15;
    return h ^ h >> 29;
  };
  for (std::size_t begin = 0, i = 0; begin < host.size_in_bytes(); begin += kWord, ++i) {
    std::uint64_t word = 0;
    std::memcpy(&word, host.bytes() + begin, std::min(kWord, host.size_in_bytes() - begin));
    lanes[i % 4] = mix(lanes[i % 4], word);
  }
  return static_cast<std::int64_t>(mix(mix(mix(lanes[0], lanes[1]), lanes[2]), lanes[3]));
}

// A line for each parameter of this kind whose replicas differ, the same on every rank of the group.
std::string differences(const Parameters& parameters, Replicas kind, const Mesh& mesh, ProcessGroup& group) {
  std::vector<const Parameter*> mine;
  for (const Parameter& p : parameters)
    if (p.replicas == kind) mine.push_back(&p);
  if (group.size() == 1 || mine.empty()) return {};

  std::vector<std::int64_t> row{mesh.world->rank()};
  for (const Parameter* p : mine) row.push_back(digest(p->variable.value()));
  const std::int64_t width = std::ssize(row);
  Tensor rows = Tensor::empty({group.size(), width}, DType::i64, Device{}, Memory::communication);
  group.all_gather(rows, Tensor::of(std::span<const std::int64_t>(row), {1, width}, Device{}));

  std::string what;
  std::size_t found = 0;
  for (std::int64_t i = 1; i < width; ++i) {
    std::map<std::int64_t, std::vector<int>> holders;  // of each digest
    for (std::int64_t r = 0; r < group.size(); ++r) {
      const std::int64_t* theirs = rows.data<std::int64_t>() + r * width;
      holders[theirs[i]].push_back(static_cast<int>(theirs[0]));
    }
    if (holders.size() == 1 || ++found > kShown) continue;
    const auto& [common, majority] = *std::ranges::max_element(
        holders, {}, [](const auto& h) { return std::pair(h.second.size(), -h.second.front()); });
    for (const auto& [bits, ranks] : holders)
      if (bits != common)
        what += text("\n  ", mine[static_cast<std::size_t>(i - 1)]->name, ": ", describe(ranks),
                     ranks.size() > 1 ? " differ from " : " differs from ", describe(majority));
  }
  return found > kShown ? text(what, "\n  and ", found - kShown, " more parameters") : what;
}

}  // namespace

void require_same_replicas(const Parameters& parameters, std::int64_t step, Mesh& mesh) {
  require_agreement({{"step", text(step)}}, *mesh.world);
  const std::string mine = differences(parameters, Replicas::data, mesh, *mesh.data) +
                           differences(parameters, Replicas::tokens, mesh, *mesh.tokens) +
                           differences(parameters, Replicas::expert_data, mesh, *mesh.expert_data) +
                           differences(parameters, Replicas::ends, mesh, *mesh.ends);
  const std::int32_t differs = !mine.empty();
  Tensor any = Tensor::of<std::int32_t>({&differs, 1}, {1}, Device{});
  mesh.world->all_reduce(any, Reduce::max);
  if (*any.data<std::int32_t>() == 0) return;

  const std::vector<std::string> all = all_gather_text(*mesh.world, mine);
  std::string what = text("after step ", step, " copies of the same parameter have not the same bits:");
  for (const std::string& theirs : std::set(all.begin(), all.end())) what += theirs;
  throw Error(what, Fault::communication);
}

}  // namespace switchyard
