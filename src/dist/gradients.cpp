#include "dist/gradients.h"

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

// Tensors that one group sums, several in one all_reduce where they are small: the sum of an element does not depend
// on what travels beside it.
class Buckets {
 public:
  Buckets(ProcessGroup& group, std::int64_t bucket_bytes) : group_(group), elements_(bucket_bytes / 4) {}

  void add(Tensor& x) {
    if (pending_elements_ + x.numel() > elements_) flush();
    pending_.push_back(x);
    pending_elements_ += x.numel();
  }

  void flush() {
    if (pending_.size() == 1) {
      group_.all_reduce(pending_.front(), Reduce::sum);
    } else if (pending_.size() > 1) {
      Tensor flat = Tensor::empty({pending_elements_}, DType::f32, pending_.front().device(), Memory::communication);
      const Kernels& k = kernels(flat.device());
      std::int64_t end = 0;
      for (const Tensor& x : pending_) {
        Tensor place = flat.rows(end, end + x.numel());
        k.copy(place, x);
        end += x.numel();
      }
      group_.all_reduce(flat, Reduce::sum);
      end = 0;
      for (Tensor& x : pending_) {
        k.copy(x, flat.rows(end, end + x.numel()));
        end += x.numel();
      }
    }
    pending_.clear();
    pending_elements_ = 0;
  }

 private:
  ProcessGroup& group_;
  std::int64_t elements_, pending_elements_ = 0;
  std::vector<Tensor> pending_;
};

void sum_over(ProcessGroup& group, Replicas replicas, Parameters& parameters, std::int64_t bucket_bytes) {
  // A group of one has its sums already: no bucket pays there.
  Buckets buckets(group, group.size() > 1 ? bucket_bytes : 0);
  for (Parameter& parameter : parameters)
    if (parameter.replicas == replicas) buckets.add(own_gradient(parameter.variable));
  buckets.flush();
}

}  // namespace

void sum_gradients(Parameters& parameters, Mesh& mesh, std::int64_t bucket_bytes) {
  SY_CHECK(bucket_bytes >= 0, "sum_gradients: buckets of ", bucket_bytes, " bytes");
  sum_over(*mesh.data, Replicas::data, parameters, bucket_bytes);
  sum_over(*mesh.expert_data, Replicas::expert_data, parameters, bucket_bytes);
}

}  // namespace switchyard
