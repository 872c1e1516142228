#pragma once

#include "autograd/parameter.h"
#include "dist/mesh.h"

namespace switchyard {

// Parameters that travel together, as the same ranks hold them and forward reads them alike: side by side in flat
// memory, which falls into one share for each rank of the group, in rank order.
struct Bucket {
  struct Place {
    std::size_t parameter;
    std::int64_t begin, end;  // in the flat memory; every begin is a multiple of kAlign
  };
  // Elements [begin, end) of a parameter, which lie in this rank's share from `place` on.
  struct Part {
    std::size_t parameter, own;  // in whole() and own()
    std::int64_t begin, end, place;
  };
  static constexpr std::int64_t kAlign = 16;  // elements: every backend's widest access

  ProcessGroup* group;
  Reads reads;
  // Its ranks work at different times: it leaves last, when the whole step's backward is done.
  bool spans_stages;
  std::vector<Place> places{};
  std::vector<Part> parts{};  // none in a group of one, whose rank owns the parameter itself

  std::int64_t elements() const { return places.empty() ? 0 : places.back().end; }
  std::int64_t share() const;  // the elements that each rank owns, as many everywhere
};
// Of a bucket of so many elements on so many ranks.
std::int64_t bucket_share(std::int64_t elements, int ranks);

// What decides which bucket a parameter goes to, and the ranks that hold it.
struct BucketItem {
  std::int64_t numel;
  Replicas replicas;  // not none
  Reads reads;
  int ranks;
};
// Which items share a bucket, and where they begin in it: buckets of one kind (replicas and reads) of at most
// `bucket_bytes` of f32, or of one larger item, filled from the last item on; those that span
// stages last. What one rank holds goes alone.
std::vector<std::vector<Bucket::Place>> fill_buckets(const std::vector<BucketItem>& items, std::int64_t bucket_bytes);

// What a run takes for `bucket_bytes`.
inline constexpr std::int64_t kBucketBytes = 8 << 20;

// Whether each rank keeps f32 masters of all that it holds, or of its own share only.
enum class Masters { whole, own };

// Who owns what: each element of the model has one owner among the ranks that hold it. With Masters::own this rank
// keeps, and its optimizer updates, only what it owns (Rajbhandari et al., arXiv 1910.02054, section 5.1: ZeRO-1):
// gradients are summed to their owners (GradientBuckets), and gather() gives new values to all. The Variables of
// whole() then keep their values in the memory of the buckets, in the type in which forward reads them: where that is
// f32 a master is a view of it, else it has memory of its own.
//
// Buckets hold at most `bucket_bytes` of f32 (a larger parameter goes alone), and are filled in the reverse order of
// the parameters, in which backward completes their gradients.
class Shards {
 public:
  // Parameters and mesh outlive this. `rows`: the type for Reads::rows.
  Shards(Parameters& whole, Mesh& mesh, std::int64_t bucket_bytes, Masters masters, DType rows);
  ~Shards();
  Shards(const Shards&) = delete;
  Shards& operator=(const Shards&) = delete;

  Parameters& whole() { return whole_; }
  // This rank's parts of them, by bucket: flat slices with Replicas::none, or the parameter itself where no other rank
  // holds it.
  Parameters& own() { return own_; }
  // What an optimizer updates and a checkpoint holds.
  Parameters& masters() { return masters_ == Masters::own ? own_ : whole_; }
  Masters kept() const { return masters_; }
  const std::vector<Bucket>& buckets() const { return buckets_; }
  // Whether the bucket's sums go to their owners alone.
  bool is_scattered(const Bucket& bucket) const { return masters_ == Masters::own && bucket.group->size() > 1; }

  // Gives all ranks what the owners' masters have become. Where the group can, values travel on while the caller goes
  // on, and are awaited when they are next read, bucket by bucket. Nothing to do with Masters::whole.
  void gather();
  void zero_grad();

 private:
  // What forward reads of a scattered bucket, and this rank's masters of it.
  struct Values {
    const Bucket* bucket;
    Tensor flat, master;
  };

  void own_parts(Bucket& bucket);
  void scatter(const Bucket& bucket, DType rows);
  void await_values();

  Parameters& whole_;
  Masters masters_;
  Parameters own_;
  std::vector<Bucket> buckets_;  // in the order in which gradients leave
  std::vector<Values> values_;   // in the order in which forward reads them
};

}  // namespace switchyard
