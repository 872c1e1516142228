#include "dist/gradients.h"

#include <algorithm>

#include "autograd/scope.h"
#include "tensor/kernels.h"

namespace switchyard {
namespace {

// The parameter's gradient in memory of its own, so that it may be summed in place; zeros where there is none.
Tensor& own_gradient(Variable& parameter) {
  Tensor& grad = parameter.grad();
  if (!grad) {
    grad = Tensor::zeros(parameter.shape(), DType::f32, parameter.device(), Memory::gradients);
  } else if (!grad.sole_owner()) {
    const Tensor shared = grad;
    grad = Tensor::empty(shared.shape(), DType::f32, shared.device(), Memory::gradients);
    kernels(shared.device()).copy(grad, shared);
  }
  return grad;
}

}  // namespace

GradientBuckets::GradientBuckets(Shards& shards)
    : shards_(shards), bucket_of_(shards.whole().size()), is_complete_(shards.whole().size()) {
  for (std::size_t b = 0; b < shards.buckets().size(); ++b)
    for (const Bucket::Place& place : shards.buckets()[b].places) bucket_of_[place.parameter] = b;
}

GradientBuckets::~GradientBuckets() { disarm(); }

void GradientBuckets::arm() {
  SY_CHECK(next_ == 0 && journeys_.empty(), "gradients: armed again before finish()");
  is_complete_.assign(is_complete_.size(), false);
  missing_.clear();
  for (const Bucket& bucket : shards_.buckets())
    missing_.push_back(bucket.places.size() + (bucket.spans_stages ? 1 : 0));  // what spans stages awaits finish()
  for (std::size_t p = 0; p < shards_.whole().size(); ++p)
    shards_.whole()[p].variable.on_grad([this, p] { complete(p); });
}

void GradientBuckets::disarm() {
  for (Parameter& parameter : shards_.whole()) parameter.variable.on_grad({});
}

void GradientBuckets::finish() {
  disarm();
  while (next_ < shards_.buckets().size()) start(shards_.buckets()[next_++]);
  while (!journeys_.empty()) end_first_journey();
  next_ = 0;
}

void GradientBuckets::complete(std::size_t p) {
  const std::size_t bucket = bucket_of_[p];
  SY_CHECK(bucket >= next_, "gradients: more of ", shards_.whole()[p].name, " came after its bucket had left");
  if (is_complete_[p]) return;
  is_complete_[p] = true;
  --missing_[bucket];
  while (next_ < missing_.size() && missing_[next_] == 0) start(shards_.buckets()[next_++]);
}

Tensor GradientBuckets::packed(const Bucket& bucket, std::int64_t elements) {
  const Device device = shards_.whole()[bucket.places[0].parameter].variable.device();
  const Kernels& k = kernels(device);
  Tensor flat = Tensor::empty({elements}, DType::f32, device, Memory::communication);
  for (std::size_t i = 0; i < bucket.places.size(); ++i) {
    const auto [parameter, begin, end] = bucket.places[i];
    Tensor place = flat.rows(begin, end);
    Tensor gap = flat.rows(end, i + 1 < bucket.places.size() ? bucket.places[i + 1].begin : elements);
    const Tensor& grad = shards_.whole()[parameter].variable.grad();
    grad ? k.copy(place, grad) : k.zero(place);
    if (gap.numel() > 0) k.zero(gap);
  }
  return flat;
}

// One gradient travels as it is where it fills its bucket, else in a piece of its own; of such pieces two are on their
// way at most. Gradients that go to their owners are let go of here.
void GradientBuckets::start(const Bucket& bucket) {
  const Scope scope("gradients");
  const bool scatters = shards_.is_scattered(bucket);
  const std::int64_t elements = scatters ? bucket.group->size() * bucket.share() : bucket.elements();
  Variable& first = shards_.whole()[bucket.places[0].parameter].variable;
  Journey journey{.bucket = &bucket,
                  .flat = {},
                  .share = {},
                  .is_packed = bucket.places.size() > 1 || first.value().numel() < elements,
                  .wait = {}};
  if (journey.is_packed)
    while (std::ranges::count_if(journeys_, &Journey::is_packed) > 1) end_first_journey();
  journey.flat = journey.is_packed ? packed(bucket, elements) : own_gradient(first);
  if (scatters) {
    for (const Bucket::Place& place : bucket.places) shards_.whole()[place.parameter].variable.zero_grad();
    journey.share = Tensor::empty({bucket.share()}, DType::f32, first.device(), Memory::gradients);
    journey.wait = bucket.group->start_reduce_scatter(journey.share, journey.flat);
  } else {
    journey.wait = bucket.group->start_all_reduce(journey.flat, Reduce::sum);
  }
  journeys_.push_back(std::move(journey));
  while (!journeys_.empty() && !journeys_.front().wait) end_first_journey();  // done already
}

void GradientBuckets::end_first_journey() {
  const Journey journey = std::move(journeys_.front());
  journeys_.pop_front();
  if (journey.wait) journey.wait();
  const Bucket& bucket = *journey.bucket;
  if (!journey.share && journey.is_packed)
    for (const auto& [parameter, begin, end] : bucket.places) {
      Tensor& grad = own_gradient(shards_.whole()[parameter].variable);
      kernels(grad.device()).copy(grad, journey.flat.rows(begin, end));
    }
  for (const Bucket::Part& part : bucket.parts) {
    const std::int64_t count = part.end - part.begin;
    const Tensor& grad = shards_.whole()[part.parameter].variable.grad();
    shards_.own()[part.own].variable.grad() = journey.share ? journey.share.rows(part.place, part.place + count)
                                                            : grad.view({grad.numel()}).rows(part.begin, part.end);
  }
}

void sum_gradients(Parameters& parameters, Mesh& mesh, std::int64_t bucket_bytes) {
  Shards shards(parameters, mesh, bucket_bytes, Masters::whole, DType::f32);
  GradientBuckets(shards).finish();
}

}  // namespace switchyard
