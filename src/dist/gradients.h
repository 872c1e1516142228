#pragma once

#include <deque>

#include "autograd/parameter.h"
#include "dist/mesh.h"

namespace switchyard {

// Sums the gradients of replicated parameters over the ranks that hold them (Replicas): over the data group what tensor
// parallelism cuts, over the tokens group what it leaves whole, experts over the expert-data group. Sums, never
// averages: the loss is already divided by the tokens of the global batch. A parameter without a gradient on this rank
// counts as zeros, as its peers wait for it.
//
// Gradients travel in buckets of at most `bucket_bytes` (a larger one alone), filled in the reverse order of the
// parameters, in which backward completes them; the sum of an element does not depend on its bucket. A bucket leaves as
// soon as it is full, while backward goes on, but always after the one before it, so that every rank sends the same
// buckets in the same order. Backward meets the same parameters in the same order on every rank, whatever the data, and
// so buckets also keep their places among the other collectives of backward.
class GradientBuckets {
 public:
  // Parameters and mesh outlive this.
  GradientBuckets(Parameters& parameters, Mesh& mesh, std::int64_t bucket_bytes);
  ~GradientBuckets();
  GradientBuckets(const GradientBuckets&) = delete;
  GradientBuckets& operator=(const GradientBuckets&) = delete;

  // From here on buckets leave when their last gradient is complete. Call it before the last backward pass of a step:
  // gradients of earlier passes, which the last one adds to, must not leave before it.
  void arm();
  // Every gradient becomes the sum; buckets that did not leave in backward leave now.
  void finish();

 private:
  struct Bucket {
    ProcessGroup* group;
    std::vector<std::size_t> parameters;
    std::int64_t elements = 0;
    std::size_t missing = 0;  // gradients that are not complete
  };
  // A bucket on its way. `flat` holds its gradients where there are several.
  struct Journey {
    const Bucket* bucket;
    Tensor flat;
    Wait wait;
  };

  void fill(std::int64_t bucket_bytes, Mesh& mesh);
  void disarm();
  void complete(std::size_t parameter);
  void start(const Bucket& bucket);
  void end_first_journey();

  Parameters& parameters_;
  std::vector<Bucket> buckets_;         // in the order in which they leave
  std::vector<std::size_t> bucket_of_;  // by parameter
  std::vector<bool> is_complete_;       // by parameter
  std::size_t next_ = 0;                // bucket to leave
  std::deque<Journey> journeys_;
};

// The same for gradients that are all complete.
void sum_gradients(Parameters& parameters, Mesh& mesh, std::int64_t bucket_bytes);

}  // namespace switchyard
