#pragma once

#include <array>
#include <map>

#include "tensor/cuda/launch.cuh"
#include "tensor/kernels.h"

#define BLAS_CHECK(call)                                                               \
  do {                                                                                 \
    const cublasStatus_t status_ = (call);                                             \
    if (status_ != CUBLAS_STATUS_SUCCESS)                                              \
      ::switchyard::fail(#call, cublasLtGetStatusString(status_), __FILE__, __LINE__); \
  } while (0)

namespace switchyard::cuda {

// C (rows, cols) = op(A) (rows, inner) op(B) (inner, cols) of row-major matrices without gaps, or a batch of such
// products whose matrices lie one behind the other. Summed in f32: bf16 in gives bf16 or f32, f32 in gives f32.
struct ProductShape {
  std::int64_t rows = 0, cols = 0, inner = 0;
  Trans ta = Trans::no, tb = Trans::no;
  DType in = DType::f32, out = DType::f32;
  std::int64_t batch = 1;

  auto operator<=>(const ProductShape&) const = default;
};

// Pointers may be aligned to no more than an element. inner = 0 makes C zero or leaves it.
struct Product {
  void* c = nullptr;
  const void *a = nullptr, *b = nullptr;
  ProductShape shape;
  Into into = Into::overwrite;
};

// A context's products on cuBLASLt. The kernel is chosen once by what the product looks like, so that equal calls give
// equal bits: cuBLASLt's heuristics are a function of shape, types and alignment, and nothing is timed.
class Products {
 public:
  explicit Products(Context& context);
  ~Products();
  Products(const Products&) = delete;
  Products& operator=(const Products&) = delete;

  // In order on the context's stream.
  void run(const Product& product);
  // Products that do not depend on each other, spread over a few streams that start after what stands on the context's
  // stream and that it then waits for. They differ in the size `varies` alone, which is the pitch of none of their
  // matrices: products of about the same size share a kernel, because asking the heuristics takes the host longer than
  // a small product takes the GPU.
  void run_all(std::span<const Product> products, std::int64_t ProductShape::*varies);

 private:
  // A stream with a workspace of its own, which kernels that run at the same time cannot share.
  struct Lane {
    cudaStream_t stream = nullptr;
    cudaEvent_t done = nullptr;
    Tensor workspace;
  };
  // Alignments in bytes, of every matrix of a batch.
  struct Key {
    ProductShape shape;
    std::uint32_t align_a = 0, align_b = 0, align_c = 0;

    auto operator<=>(const Key&) const = default;
  };
  struct Plan {
    cublasLtMatmulAlgo_t algorithm;
    std::size_t workspace;
  };

  // planned_for: the shape whose kernel to take; where that kernel refuses this shape, its own is taken.
  void run_on(Lane& lane, const Product& product, const ProductShape& planned_for);
  const Plan& plan(const Key& key);

  Context& context_;
  static constexpr std::size_t kLanes = 4;
  std::array<Lane, kLanes> lanes_;  // the first is on the context's stream
  cudaEvent_t start_ = nullptr;
  std::map<Key, Plan> plans_;
};

}  // namespace switchyard::cuda
