#include "dist/shards.h"

#include <algorithm>

#include "autograd/scope.h"
#include "tensor/kernels.h"

namespace switchyard {
namespace {

std::int64_t round_up(std::int64_t n, std::int64_t unit) { return (n + unit - 1) / unit * unit; }

ProcessGroup& holders_of(Replicas replicas, Mesh& mesh) {
  switch (replicas) {
    case Replicas::data: return *mesh.data;
    case Replicas::tokens: return *mesh.tokens;
    case Replicas::expert_data: return *mesh.expert_data;
    case Replicas::ends: return *mesh.ends;
    case Replicas::none: break;
  }
  throw Error("shards of what only one rank holds");
}

Tensor flat(const Tensor& x) { return x.view({x.numel()}); }

}  // namespace

std::int64_t Bucket::share() const { return round_up(round_up(elements(), group->size()) / group->size(), kAlign); }

Shards::Shards(Parameters& whole, Mesh& mesh, std::int64_t bucket_bytes, Masters masters, DType rows)
    : whole_(whole), masters_(masters) {
  SY_CHECK(bucket_bytes >= 0, "shards: buckets of ", bucket_bytes, " bytes");
  fill(bucket_bytes, mesh);
  for (Bucket& bucket : buckets_) own_parts(bucket);
  for (std::size_t b = buckets_.size(); b-- > 0;)
    if (is_scattered(buckets_[b])) scatter(buckets_[b], rows);
}

// Memory that values travel into must not be given to others before they came. After a failure of the group, which its
// next call tells, nothing is on its way.
Shards::~Shards() {
  try {
    await_values();
  } catch (const Error&) {
  }
}

// One bucket is open of each kind; it takes its place in the order when it is closed.
void Shards::fill(std::int64_t bucket_bytes, Mesh& mesh) {
  std::vector<Bucket> open;
  for (const Replicas replicas : {Replicas::data, Replicas::tokens, Replicas::expert_data, Replicas::ends})
    for (const Reads reads : {Reads::f32, Reads::rows})
      open.push_back(
          {.group = &holders_of(replicas, mesh), .reads = reads, .spans_stages = replicas == Replicas::ends});
  const auto close = [&](Bucket& bucket) {
    if (!bucket.places.empty())
      buckets_.push_back(
          std::exchange(bucket, {.group = bucket.group, .reads = bucket.reads, .spans_stages = bucket.spans_stages}));
  };
  for (std::size_t p = whole_.size(); p-- > 0;) {
    Bucket& bucket = open[2 * static_cast<std::size_t>(whole_[p].replicas) + static_cast<std::size_t>(whole_[p].reads)];
    const std::int64_t numel = whole_[p].variable.value().numel();
    // A group of one has its sums already: no bucket pays there.
    const std::int64_t most = bucket.group->size() > 1 ? bucket_bytes / 4 : 0;
    if (round_up(bucket.elements(), Bucket::kAlign) + numel > most) close(bucket);
    const std::int64_t begin = round_up(bucket.elements(), Bucket::kAlign);
    bucket.places.push_back({.parameter = p, .begin = begin, .end = begin + numel});
  }
  for (Bucket& bucket : open) close(bucket);
  std::ranges::stable_partition(buckets_, [](const Bucket& bucket) { return !bucket.spans_stages; });
}

void Shards::own_parts(Bucket& bucket) {
  const std::int64_t first = bucket.group->rank() * bucket.share(), last = first + bucket.share();
  for (const Bucket::Place& place : bucket.places) {
    const Parameter& p = whole_[place.parameter];
    if (bucket.group->size() == 1) {
      own_.push_back(p);
      continue;
    }
    const std::int64_t begin = std::max(first, place.begin), end = std::min(last, place.end);
    if (begin >= end) continue;
    const Bucket::Part part{.parameter = place.parameter,
                            .own = own_.size(),
                            .begin = begin - place.begin,
                            .end = end - place.begin,
                            .place = begin - first};
    bucket.parts.push_back(part);
    own_.push_back({.name = p.name,
                    .variable = Variable(flat(p.variable.value()).rows(part.begin, part.end), true),
                    .global_shape = p.global_shape,
                    .boxes = cut_flat(p.boxes, part.begin, part.end),
                    .replicas = Replicas::none,
                    .reads = p.reads,
                    .decay = p.decay});
  }
}

// Moves values into the bucket's memory, and this rank's masters where they stay.
void Shards::scatter(const Bucket& bucket, DType rows) {
  const DType dtype = bucket.reads == Reads::f32 ? DType::f32 : rows;
  const Device device = whole_[bucket.places[0].parameter].variable.device();
  const std::int64_t share = bucket.share(), first = bucket.group->rank() * share;
  const Kernels& k = kernels(device);

  Tensor values = Tensor::zeros({bucket.group->size() * share}, dtype, device, Memory::parameters);
  for (const Bucket::Place& place : bucket.places) {
    Tensor& value = whole_[place.parameter].variable.value();
    SY_CHECK(value.dtype() == DType::f32, "shards: ", whole_[place.parameter].name, " is ", value.dtype());
    Tensor moved = values.rows(place.begin, place.end).view(value.shape());
    k.copy(moved, value);
    value = moved;
  }
  Tensor master = dtype == DType::f32 ? values.rows(first, first + share)
                                      : Tensor::zeros({share}, DType::f32, device, Memory::parameters);
  for (const Bucket::Part& part : bucket.parts) {
    Tensor& own = own_[part.own].variable.value();  // still a view of the value as it was made
    Tensor moved = master.rows(part.place, part.place + own.numel());
    k.copy(moved, own);
    own = moved;
  }
  values_.push_back({&bucket, values, master});
}

void Shards::gather() {
  const Scope scope("parameters");
  await_values();
  for (Values& values : values_) {
    Tensor mine =
        Tensor::empty(values.master.shape(), values.flat.dtype(), values.flat.device(), Memory::communication);
    kernels(mine.device()).copy(mine, values.master);
    const Wait wait = values.bucket->group->start_all_gather(values.flat, mine);
    if (!wait) {
      for (const Bucket::Place& place : values.bucket->places) whole_[place.parameter].variable.refresh_weight();
      continue;
    }
    // Whoever reads first waits for all; `mine` lives until then.
    const auto arrive = [once = std::make_shared<Wait>(wait), mine] {
      if (*once) std::exchange(*once, {})();
    };
    for (const Bucket::Place& place : values.bucket->places) whole_[place.parameter].variable.arrives(arrive);
    for (const Bucket::Part& part : values.bucket->parts) own_[part.own].variable.arrives(arrive);
  }
}

void Shards::await_values() {
  for (const Parameter& p : whole_) static_cast<void>(p.variable.value());
  for (const Parameter& p : own_) static_cast<void>(p.variable.value());
}

void Shards::zero_grad() {
  for (Parameter& p : whole_) p.variable.zero_grad();
  for (Parameter& p : own_) p.variable.zero_grad();
}

}  // namespace switchyard
