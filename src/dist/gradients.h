#pragma once

#include <deque>

#include "dist/shards.h"

namespace switchyard {

// Sums the gradients of replicated parameters over the ranks that hold them (Replicas): over the data group what tensor
// parallelism cuts, over the tokens group what it leaves whole, experts over the expert-data group, a table that the
// first and the last stage share over these. Sums, never
// averages: the loss is already divided by the tokens of the global batch. A parameter without a gradient on this rank
// counts as zeros, as its peers wait for it. Where shards keep all masters every rank gets every sum; where they keep
// their own, each rank gets the sums of what it owns, and lets go of all the others.
//
// Gradients travel in the buckets of the shards; the sum of an element depends neither on its bucket nor on who gets
// it. A bucket leaves as soon as it is full, while backward goes on, but always after the one before it, so that every
// rank sends the same buckets in the same order. Backward meets the same parameters in the same order on every rank,
// whatever the data, and so buckets also keep their places among the other collectives of backward. What stages share
// leaves in finish(): within backward one stage would wait for another that waits for it.
class GradientBuckets {
 public:
  explicit GradientBuckets(Shards& shards);  // which outlive this
  ~GradientBuckets();
  GradientBuckets(const GradientBuckets&) = delete;
  GradientBuckets& operator=(const GradientBuckets&) = delete;

  // From here on buckets leave when their last gradient is complete. Call it before the last backward pass of a step:
  // gradients of earlier passes, which the last one adds to, must not leave before it.
  void arm();
  // The gradients of Shards::own() become the sums, and, with Masters::whole, those of whole() too. Buckets that did
  // not leave in backward leave now.
  void finish();

 private:
  // A bucket on its way: its gradients, and where the sums of this rank's share arrive if they go to owners alone.
  struct Journey {
    const Bucket* bucket;
    Tensor flat, share;
    bool is_packed;  // several gradients side by side, not one as it is
    Wait wait;
  };

  void disarm();
  void complete(std::size_t parameter);
  void start(const Bucket& bucket);
  void end_first_journey();
  // The bucket's gradients side by side, zeros between them and up to `elements`.
  Tensor packed(const Bucket& bucket, std::int64_t elements);

  Shards& shards_;
  std::vector<std::size_t> bucket_of_;  // by parameter
  std::vector<bool> is_complete_;       // by parameter
  std::vector<std::size_t> missing_;    // by bucket: gradients that are not complete
  std::size_t next_ = 0;                // bucket to leave
  std::deque<Journey> journeys_;
};

// The same for gradients that are all complete, on every rank that holds the parameters.
void sum_gradients(Parameters& parameters, Mesh& mesh, std::int64_t bucket_bytes);

}  // namespace switchyard
