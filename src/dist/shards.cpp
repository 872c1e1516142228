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

std::int64_t Bucket::share() const { return bucket_share(elements(), group->size()); }

std::int64_t bucket_share(std::int64_t elements, int ranks) {
  return round_up(round_up(elements, ranks) / ranks, Bucket::kAlign);
}

// One bucket is open of each kind; it takes its place in the order when it is closed.
std::vector<std::vector<Bucket::Place>> fill_buckets(const std::vector<BucketItem>& items, std::int64_t bucket_bytes) {
  std::vector<std::vector<Bucket::Place>> buckets;
  std::array<std::vector<Bucket::Place>, 8> open;  // by replicas and reads
  const auto close = [&](std::vector<Bucket::Place>& bucket) {
    if (!bucket.empty()) buckets.push_back(std::exchange(bucket, {}));
  };
  const auto next = [](const std::vector<Bucket::Place>& bucket) {
    return bucket.empty() ? 0 : round_up(bucket.back().end, Bucket::kAlign);
  };
  for (std::size_t i = items.size(); i-- > 0;) {
    const auto& [numel, replicas, reads, ranks] = items[i];
    SY_CHECK(replicas != Replicas::none, "buckets of what only one rank holds");
    std::vector<Bucket::Place>& bucket = open[2 * static_cast<std::size_t>(replicas) + static_cast<std::size_t>(reads)];
    // A group of one has its sums already: no bucket pays there.
    const std::int64_t most = ranks > 1 ? bucket_bytes / 4 : 0;
    if (next(bucket) + numel > most) close(bucket);
    bucket.push_back({.parameter = i, .begin = next(bucket), .end = next(bucket) + numel});
  }
  for (std::vector<Bucket::Place>& bucket : open) close(bucket);
  std::ranges::stable_partition(buckets, [&](const std::vector<Bucket::Place>& bucket) {
    return items[bucket.front().parameter].replicas != Replicas::ends;
  });
  return buckets;
}

Shards::Shards(Parameters& whole, Mesh& mesh, std::int64_t bucket_bytes, Masters masters, DType rows)
    : whole_(whole), masters_(masters) {
  SY_CHECK(bucket_bytes >= 0, "shards: buckets of ", bucket_bytes, " bytes");
  std::vector<BucketItem> items;
  for (const Parameter& p : whole_)
    items.push_back({.numel = p.variable.value().numel(),
                     .replicas = p.replicas,
                     .reads = p.reads,
                     .ranks = holders_of(p.replicas, mesh).size()});
  for (std::vector<Bucket::Place>& places : fill_buckets(items, bucket_bytes)) {
    const Parameter& first = whole_[places.front().parameter];
    buckets_.push_back({.group = &holders_of(first.replicas, mesh),
                        .reads = first.reads,
                        .spans_stages = first.replicas == Replicas::ends,
                        .places = std::move(places)});
  }
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
