#include "dist/gradients.h"

#include <algorithm>

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

GradientBuckets::GradientBuckets(Parameters& parameters, Mesh& mesh, std::int64_t bucket_bytes)
    : parameters_(parameters), bucket_of_(parameters.size()), is_complete_(parameters.size()) {
  SY_CHECK(bucket_bytes >= 0, "gradients: buckets of ", bucket_bytes, " bytes");
  fill(bucket_bytes, mesh);
}

GradientBuckets::~GradientBuckets() { disarm(); }

// Each kind of replicas has one bucket open; a bucket takes its place in the order when it is closed.
void GradientBuckets::fill(std::int64_t bucket_bytes, Mesh& mesh) {
  Bucket open[] = {{.group = mesh.data.get(), .parameters = {}},
                   {.group = mesh.tokens.get(), .parameters = {}},
                   {.group = mesh.expert_data.get(), .parameters = {}}};
  const auto close = [&](Bucket& bucket) {
    if (bucket.parameters.empty()) return;
    for (std::size_t p : bucket.parameters) bucket_of_[p] = buckets_.size();
    buckets_.push_back(std::exchange(bucket, {.group = bucket.group, .parameters = {}}));
  };
  for (std::size_t p = parameters_.size(); p-- > 0;) {
    Bucket& bucket = open[static_cast<int>(parameters_[p].replicas)];
    const std::int64_t elements = parameters_[p].variable.value().numel();
    // A group of one has its sums already: no bucket pays there.
    const std::int64_t most = bucket.group->size() > 1 ? bucket_bytes / 4 : 0;
    if (bucket.elements + elements > most) close(bucket);
    bucket.parameters.push_back(p);
    bucket.elements += elements;
  }
  for (Bucket& bucket : open) close(bucket);
}

void GradientBuckets::arm() {
  SY_CHECK(next_ == 0 && journeys_.empty(), "gradients: armed again before finish()");
  is_complete_.assign(parameters_.size(), false);
  for (Bucket& bucket : buckets_) bucket.missing = bucket.parameters.size();
  for (std::size_t p = 0; p < parameters_.size(); ++p)
    parameters_[p].variable.on_grad([this, p](Variable&) { complete(p); });
}

void GradientBuckets::disarm() {
  for (Parameter& parameter : parameters_) parameter.variable.on_grad({});
}

void GradientBuckets::finish() {
  disarm();
  while (next_ < buckets_.size()) start(buckets_[next_++]);
  while (!journeys_.empty()) end_first_journey();
  next_ = 0;
}

void GradientBuckets::complete(std::size_t p) {
  Bucket& bucket = buckets_[bucket_of_[p]];
  SY_CHECK(bucket_of_[p] >= next_, "gradients: more of ", parameters_[p].name, " came after its bucket had left");
  if (is_complete_[p]) return;
  is_complete_[p] = true;
  --bucket.missing;
  while (next_ < buckets_.size() && buckets_[next_].missing == 0) start(buckets_[next_++]);
}

// One gradient travels as it is, several side by side in one piece; of such pieces two are on their way at most.
void GradientBuckets::start(const Bucket& bucket) {
  if (bucket.parameters.size() == 1) {
    Tensor& grad = own_gradient(parameters_[bucket.parameters[0]].variable);
    journeys_.push_back({&bucket, {}, bucket.group->start_all_reduce(grad, Reduce::sum)});
  } else {
    while (std::ranges::count_if(journeys_, [](const Journey& j) { return bool(j.flat); }) > 1) end_first_journey();
    const Device device = parameters_[bucket.parameters[0]].variable.device();
    Tensor flat = Tensor::empty({bucket.elements}, DType::f32, device, Memory::communication);
    std::int64_t end = 0;
    for (std::size_t p : bucket.parameters) {
      const Tensor& grad = own_gradient(parameters_[p].variable);
      Tensor place = flat.rows(end, end + grad.numel());
      kernels(device).copy(place, grad);
      end += grad.numel();
    }
    Wait wait = bucket.group->start_all_reduce(flat, Reduce::sum);
    journeys_.push_back({&bucket, std::move(flat), std::move(wait)});
  }
  while (!journeys_.empty() && !journeys_.front().wait) end_first_journey();  // done already
}

void GradientBuckets::end_first_journey() {
  const Journey journey = std::move(journeys_.front());
  journeys_.pop_front();
  if (journey.wait) journey.wait();
  if (!journey.flat) return;
  std::int64_t end = 0;
  for (std::size_t p : journey.bucket->parameters) {
    Tensor& grad = parameters_[p].variable.grad();
    kernels(grad.device()).copy(grad, journey.flat.rows(end, end + grad.numel()));
    end += grad.numel();
  }
}

void sum_gradients(Parameters& parameters, Mesh& mesh, std::int64_t bucket_bytes) {
  GradientBuckets(parameters, mesh, bucket_bytes).finish();
}

}  // namespace switchyard
