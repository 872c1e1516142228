#include <algorithm>
#include <bit>

#include "tensor/cuda/kernels.h"
#include "tensor/cuda/products.cuh"

namespace switchyard::cuda {
namespace {

constexpr std::size_t kWorkspace = 32 << 20;  // what cuBLAS asks for on Hopper

cudaDataType_t blas_type(DType dtype) { return dtype == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

// The alignment of every matrix of a batch, as far as it matters: no access of a GPU is wider than 16 bytes.
std::uint32_t alignment(const void* first, std::int64_t elements_each, DType dtype, std::int64_t batch) {
  auto bits = reinterpret_cast<std::uintptr_t>(first) | 16;
  if (batch > 1) bits |= static_cast<std::uintptr_t>(elements_each) * size_of(dtype);
  return std::uint32_t{1} << std::countr_zero(bits);
}

struct Layout : cublasLtMatrixLayoutOpaque_t {
  // Column-major, as cuBLAS has it.
  Layout(DType dtype, std::int64_t rows, std::int64_t cols, std::int64_t batch) {
    BLAS_CHECK(cublasLtMatrixLayoutInit(this, blas_type(dtype), static_cast<std::uint64_t>(rows),
                                        static_cast<std::uint64_t>(cols), rows));
    if (batch == 1) return;
    const auto count = static_cast<std::int32_t>(batch);
    const std::int64_t stride = rows * cols;
    BLAS_CHECK(cublasLtMatrixLayoutSetAttribute(this, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count));
    BLAS_CHECK(
        cublasLtMatrixLayoutSetAttribute(this, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride));
  }
};

// A row-major matrix is its transpose to cuBLAS, and C^T = op(B)^T op(A)^T: B comes first, each with its own flag.
struct Description {
  cublasLtMatmulDescOpaque_t operation;
  Layout first, second, result;

  explicit Description(const ProductShape& s)
      : first(stored(s.in, s.inner, s.cols, s.tb, s.batch)),
        second(stored(s.in, s.rows, s.inner, s.ta, s.batch)),
        result(s.out, s.cols, s.rows, s.batch) {
    // Plain 32F: f32 products stay f32, without the 11 bits of TF32.
    BLAS_CHECK(cublasLtMatmulDescInit(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    set(CUBLASLT_MATMUL_DESC_TRANSA, s.tb);
    set(CUBLASLT_MATMUL_DESC_TRANSB, s.ta);
  }

 private:
  // How op(X) (rows, cols) lies in memory.
  static Layout stored(DType dtype, std::int64_t rows, std::int64_t cols, Trans t, std::int64_t batch) {
    return t == Trans::yes ? Layout(dtype, rows, cols, batch) : Layout(dtype, cols, rows, batch);
  }
  void set(cublasLtMatmulDescAttributes_t which, Trans t) {
    const std::int32_t flag = t == Trans::yes ? CUBLAS_OP_T : CUBLAS_OP_N;
    BLAS_CHECK(cublasLtMatmulDescSetAttribute(&operation, which, &flag, sizeof flag));
  }
};

struct Preference : cublasLtMatmulPreferenceOpaque_t {
  Preference() { BLAS_CHECK(cublasLtMatmulPreferenceInit(this)); }
  template <class T>
  void set(cublasLtMatmulPreferenceAttributes_t which, T value) {
    BLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(this, which, &value, sizeof value));
  }
};

cublasStatus_t multiply(cublasLtHandle_t blas, Description& d, const Product& p, const cublasLtMatmulAlgo_t& algorithm,
                        Tensor& workspace, cudaStream_t stream) {
  const float one = 1, before = p.into == Into::accumulate ? 1 : 0;
  return cublasLtMatmul(blas, &d.operation, &one, p.b, &d.first, p.a, &d.second, &before, p.c, &d.result, p.c,
                        &d.result, &algorithm, workspace ? workspace.bytes() : nullptr,
                        workspace ? workspace.size_in_bytes() : 0, stream);
}

// At most an eighth more, so that there are eight sizes an octave.
std::int64_t round_up(std::int64_t size) {
  const auto step = std::max<std::int64_t>(16, static_cast<std::int64_t>(std::bit_floor(std::uint64_t(size))) / 8);
  return ceil_div(size, step) * step;
}

}  // namespace

Products::Products(Context& context) : context_(context) {
  lanes_[0].stream = context.stream();
  for (Lane& lane : std::span(lanes_).subspan(1)) {
    CUDA_CHECK(cudaStreamCreateWithFlags(&lane.stream, cudaStreamNonBlocking));
    CUDA_CHECK(cudaEventCreateWithFlags(&lane.done, cudaEventDisableTiming));
  }
  CUDA_CHECK(cudaEventCreateWithFlags(&start_, cudaEventDisableTiming));
}

// Errors are left alone, as in ~Context.
Products::~Products() {
  for (Lane& lane : std::span(lanes_).subspan(1)) {
    cudaEventDestroy(lane.done);
    cudaStreamDestroy(lane.stream);
  }
  cudaEventDestroy(start_);
}

void Products::run(const Product& product) { run_on(lanes_[0], product, product.shape); }

void Products::run_all(std::span<const Product> products, std::int64_t ProductShape::*varies) {
  const auto used = std::span(lanes_).first(std::min(kLanes, products.size()));
  if (used.size() > 1) CUDA_CHECK(cudaEventRecord(start_, lanes_[0].stream));
  for (std::size_t i = 1; i < used.size(); ++i) CUDA_CHECK(cudaStreamWaitEvent(used[i].stream, start_));
  for (std::size_t i = 0; i < products.size(); ++i) {
    ProductShape planned_for = products[i].shape;
    planned_for.*varies = round_up(planned_for.*varies);
    run_on(used[i % used.size()], products[i], planned_for);
  }
  for (std::size_t i = 1; i < used.size(); ++i) {
    CUDA_CHECK(cudaEventRecord(used[i].done, used[i].stream));
    CUDA_CHECK(cudaStreamWaitEvent(lanes_[0].stream, used[i].done));
  }
}

void Products::run_on(Lane& lane, const Product& product, const ProductShape& planned_for) {
  const ProductShape& s = product.shape;
  const std::int64_t elements = s.batch * s.rows * s.cols;
  if (elements == 0) return;
  if (s.inner == 0) {
    if (product.into == Into::overwrite)
      CUDA_CHECK(cudaMemsetAsync(product.c, 0, static_cast<std::size_t>(elements) * size_of(s.out), lane.stream));
    return;
  }
  Key key{.shape = planned_for,
          .align_a = alignment(product.a, s.rows * s.inner, s.in, s.batch),
          .align_b = alignment(product.b, s.inner * s.cols, s.in, s.batch),
          .align_c = alignment(product.c, s.rows * s.cols, s.out, s.batch)};
  Description description(s);
  const auto multiply_as_planned = [&] {
    const Plan& chosen = plan(key);
    if (chosen.workspace > 0 && !lane.workspace)
      lane.workspace = Tensor::empty({std::int64_t{kWorkspace}}, DType::u8, context_.device());
    return multiply(context_.blas(), description, product, chosen.algorithm, lane.workspace, lane.stream);
  };
  cublasStatus_t status = multiply_as_planned();
  if (status != CUBLAS_STATUS_SUCCESS && planned_for != s) {
    key.shape = s;
    status = multiply_as_planned();
  }
  SY_CHECK(status == CUBLAS_STATUS_SUCCESS, "cublasLtMatmul of ", s.batch, " x (", s.rows, ", ", s.inner, ") and (",
           s.inner, ", ", s.cols, "), ", s.in, " to ", s.out, ": ", cublasLtGetStatusString(status));
}

const Products::Plan& Products::plan(const Key& key) {
  if (const auto found = plans_.find(key); found != plans_.end()) return found->second;
  const ProductShape& s = key.shape;
  Preference preference;
  preference.set<std::uint64_t>(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspace);
  // A long sum may be split where the parts are kept in f32 and added in a step of its own: not in the result's type
  // (which may be bf16), and not in the order in which blocks happen to finish.
  preference.set<std::uint32_t>(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
  preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key.align_b);  // B comes first
  preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.align_a);
  preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key.align_c);
  preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key.align_c);
  Description d(s);
  cublasLtMatmulHeuristicResult_t best{};
  int found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(context_.blas(), &d.operation, &d.first, &d.second,
                                                               &d.result, &d.result, &preference, 1, &best, &found);
  SY_CHECK(status == CUBLAS_STATUS_SUCCESS && found == 1 && best.state == CUBLAS_STATUS_SUCCESS,
           "cuBLASLt has no kernel for ", s.batch, " x (", s.rows, ", ", s.inner, ") and (", s.inner, ", ", s.cols,
           "), ", s.in, " to ", s.out, ": ", cublasLtGetStatusString(status));
  return plans_.emplace(key, Plan{best.algo, best.workspaceSize}).first->second;
}

void matmul(Tensor& c, const Tensor& a, const Tensor& b, Trans ta, Trans tb, Into into) {
  Context& on = context(c.device());
  on.products().run({.c = c.bytes(),
                     .a = a.bytes(),
                     .b = b.bytes(),
                     .shape = {.rows = c.dim(0),
                               .cols = c.dim(1),
                               .inner = a.dim(ta == Trans::yes ? 0 : 1),
                               .ta = ta,
                               .tb = tb,
                               .in = a.dtype(),
                               .out = c.dtype()},
                     .into = into});
}

}  // namespace switchyard::cuda
