// cuBLASLt on the SIMT machine: plain loops with f32 sums, and the refusals of the real one. Where the caller lets it,
// it does what makes the real one's results worse or vary, so that tests see what was asked for; and products on side
// streams take their time, so that a result that nobody waits for is missing.
#include <cublasLt.h>
#include <cuda_bf16.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <thread>

#include "simt/guarded.h"
#include "simt/streams.h"

namespace {

constexpr auto kInvalid = CUBLAS_STATUS_INVALID_VALUE, kUnsupported = CUBLAS_STATUS_NOT_SUPPORTED;

template <class T>
cublasStatus_t set(T& field, const void* value, std::size_t size) {
  if (size != sizeof field) return kInvalid;
  std::memcpy(&field, value, size);
  return CUBLAS_STATUS_SUCCESS;
}

std::size_t size_of(cudaDataType_t type) { return type == CUDA_R_16BF ? 2 : 4; }

float load(const void* p, cudaDataType_t type, std::int64_t i) {
  return type == CUDA_R_16BF ? float(static_cast<const __nv_bfloat16*>(p)[i]) : static_cast<const float*>(p)[i];
}
void store(void* p, cudaDataType_t type, std::int64_t i, float x) {
  if (type == CUDA_R_16BF)
    static_cast<__nv_bfloat16*>(p)[i] = __nv_bfloat16(x);
  else
    static_cast<float*>(p)[i] = x;
}

// A matrix of a batch, seen through its transpose where it is to be transposed.
struct Matrix {
  const void* p;
  cublasLtMatrixLayoutOpaque_t layout;
  bool transpose = false;

  std::int64_t rows() const { return std::int64_t(transpose ? layout.cols : layout.rows); }
  std::int64_t cols() const { return std::int64_t(transpose ? layout.rows : layout.cols); }
  std::int64_t place(std::int64_t batch, std::int64_t row, std::int64_t col) const {
    return batch * layout.stride + (transpose ? col + row * layout.pitch : row + col * layout.pitch);
  }
  float at(std::int64_t batch, std::int64_t row, std::int64_t col) const {
    return load(p, layout.type, place(batch, row, col));
  }
  bool aligned(std::uint32_t to) const {
    const auto address = [&](std::int64_t batch) {
      return reinterpret_cast<std::uintptr_t>(p) + std::uintptr_t(place(batch, 0, 0)) * size_of(layout.type);
    };
    return address(0) % to == 0 && (layout.batch == 1 || address(1) % to == 0);
  }
};

// What both calls check alike: sizes that fit, room for the columns, one batch, and types that go together.
cublasStatus_t check(const Matrix& a, const Matrix& b, const Matrix& c, const Matrix& d) {
  for (const Matrix* m : {&a, &b, &c, &d})
    if (m->layout.rows == 0 || m->layout.cols == 0 || m->layout.pitch < std::int64_t(m->layout.rows) ||
        m->layout.batch != d.layout.batch || m->layout.batch < 1)
      return kInvalid;
  if (a.rows() != d.rows() || b.cols() != d.cols() || a.cols() != b.rows() || c.rows() != d.rows() ||
      c.cols() != d.cols())
    return kInvalid;
  const cudaDataType_t in = a.layout.type, out = d.layout.type;
  return b.layout.type == in && c.layout.type == out && (out == CUDA_R_32F || out == in) ? CUBLAS_STATUS_SUCCESS
                                                                                         : kUnsupported;
}

// All matrices of the batch lie in one block of device memory.
bool on_device(const Matrix& m) {
  const std::int64_t last = m.place(m.layout.batch - 1, m.rows() - 1, m.cols() - 1);
  return simt::on_device(m.p, std::size_t(last + 1) * size_of(m.layout.type));
}

// A stream's workspace: kernels on other streams may run at the same time.
bool own_workspace(const void* workspace, cudaStream_t stream) {
  thread_local std::map<const void*, cudaStream_t> owners;
  return owners.emplace(workspace, stream).first->second == stream;
}

void carry_out(cudaStream_t stream, std::function<void()> product) {
  thread_local const cudaStream_t main = stream;  // a thread multiplies there first; its kernels are on it
  if (stream == main) {
    const simt::DeviceAccess access;
    return product();
  }
  const auto work = std::make_shared<simt::Work>();
  work->begin = [product = std::move(product)](const std::shared_ptr<simt::Work>& self) {
    std::thread([product, self] {
      std::this_thread::sleep_for(std::chrono::microseconds(100));
      const simt::DeviceAccess access;
      product();
      const auto lock = simt::lock_streams();
      simt::end(self);
    }).detach();
  };
  const auto lock = simt::lock_streams();
  simt::put(stream, work);
}

float rounded(float x, cudaDataType_t type) { return type == CUDA_R_16BF ? float(__nv_bfloat16(x)) : x; }

constexpr std::int64_t kShortestSplit = 8;

struct Call {
  Matrix left, right, before, result;
  void* d;
  cublasLtMatmulAlgo_t algo;
  void* workspace;
  float scale, keep;

  void multiply() const {
    const cudaDataType_t out = result.layout.type;
    if (algo.workspace) std::memset(workspace, 0xff, algo.workspace);
    for (std::int64_t n = 0; n < result.layout.batch; ++n)
      for (std::int64_t i = 0; i < result.rows(); ++i)
        for (std::int64_t j = 0; j < result.cols(); ++j) {
          const float kept = keep == 0 ? 0 : keep * before.at(n, i, j);
          store(d, out, result.place(n, i, j), scale * dot(n, i, j) + kept);
        }
  }

 private:
  float dot(std::int64_t n, std::int64_t i, std::int64_t j) const {
    // In place, parts are added in the order in which they finish: here another one each time.
    static std::atomic<int> finished = 0;
    const int first_part = algo.reduction == CUBLASLT_REDUCTION_SCHEME_INPLACE ? finished++ % algo.splits : 0;
    const bool rounds_parts = algo.reduction == CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE && algo.splits > 1;
    float sum = 0;
    for (int s = 0; s < algo.splits; ++s) {
      const int part = (s + first_part) % algo.splits;
      float x = 0;
      for (std::int64_t k = left.cols() * part / algo.splits; k < left.cols() * (part + 1) / algo.splits; ++k)
        x += left.at(n, i, k) * right.at(n, k, j);
      sum += rounds_parts ? rounded(x, result.layout.type) : x;
    }
    return sum;
  }
};

}  // namespace

const char* cublasLtGetStatusString(cublasStatus_t s) {
  return s == CUBLAS_STATUS_SUCCESS ? "no error" : s == kInvalid ? "invalid value" : "not supported";
}

cublasStatus_t cublasLtMatrixLayoutInit(cublasLtMatrixLayout_t layout, cudaDataType type, std::uint64_t rows,
                                        std::uint64_t cols, std::int64_t pitch) {
  *layout = {type, rows, cols, pitch, 1, 0};
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t which,
                                                const void* value, std::size_t size) {
  return which == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT ? set(layout->batch, value, size)
                                                     : set(layout->stride, value, size);
}

cublasStatus_t cublasLtMatmulDescInit(cublasLtMatmulDesc_t desc, cublasComputeType_t, cudaDataType_t scale) {
  *desc = {CUBLAS_OP_N, CUBLAS_OP_N};
  return scale == CUDA_R_32F ? CUBLAS_STATUS_SUCCESS : kUnsupported;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t which,
                                              const void* value, std::size_t size) {
  return set(which == CUBLASLT_MATMUL_DESC_TRANSA ? desc->transpose_a : desc->transpose_b, value, size);
}

cublasStatus_t cublasLtMatmulPreferenceInit(cublasLtMatmulPreference_t preference) {
  *preference = {0, CUBLASLT_REDUCTION_SCHEME_MASK, {256, 256, 256, 256}};
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t which, const void* value,
                                                    std::size_t size) {
  switch (which) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: return set(preference->workspace, value, size);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: return set(preference->reductions, value, size);
    default: return set(preference->alignment[which - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, size);
  }
}

// Relies on all that the preference grants: the alignments, and a workspace for the parts of a sum that is long enough
// to be split.
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                              cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference,
                                              int requested, cublasLtMatmulHeuristicResult_t results[], int* returned) {
  const Matrix left{nullptr, *a, desc->transpose_a == CUBLAS_OP_T},
      right{nullptr, *b, desc->transpose_b == CUBLAS_OP_T};
  *returned = 0;
  if (requested < 1) return kInvalid;
  if (const auto status = check(left, right, {nullptr, *c}, {nullptr, *d}); status != CUBLAS_STATUS_SUCCESS)
    return status;
  cublasLtMatmulAlgo_t algo{a->type, d->type, CUBLASLT_REDUCTION_SCHEME_NONE, 1, {}, 0};
  std::ranges::copy(preference->alignment, algo.alignment);
  for (auto scheme : {CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, CUBLASLT_REDUCTION_SCHEME_INPLACE,
                      CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE})
    if (preference->reductions & scheme) algo.reduction = scheme;
  if (algo.reduction != CUBLASLT_REDUCTION_SCHEME_NONE && d->batch == 1) {
    algo.splits = std::int32_t(std::clamp<std::int64_t>(left.cols() / kShortestSplit, 1, 4));
    algo.workspace = std::uint64_t(algo.splits) * 256;
    if (algo.splits == 1 || algo.workspace > preference->workspace) algo.splits = 1, algo.workspace = 0;
  }
  results[0] = {algo, algo.workspace, CUBLAS_STATUS_SUCCESS};
  *returned = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algo, void* workspace,
                              std::size_t workspace_bytes, cudaStream_t stream) {
  const Matrix left{a, *a_layout, desc->transpose_a == CUBLAS_OP_T},
      right{b, *b_layout, desc->transpose_b == CUBLAS_OP_T}, before{c, *c_layout}, result{d, *d_layout};
  if (const auto status = check(left, right, before, result); status != CUBLAS_STATUS_SUCCESS) return status;
  if (!algo || algo->in != a_layout->type || algo->out != d_layout->type ||
      (algo->splits > 1 && left.cols() < algo->splits * kShortestSplit))
    return kUnsupported;
  if (!left.aligned(algo->alignment[0]) || !right.aligned(algo->alignment[1]) || !before.aligned(algo->alignment[2]) ||
      !result.aligned(algo->alignment[3]))
    return kInvalid;
  if (!on_device(left) || !on_device(right) || !on_device(before) || !on_device(result)) return kInvalid;
  if (algo->workspace && (workspace_bytes < algo->workspace || !simt::on_device(workspace, workspace_bytes) ||
                          reinterpret_cast<std::uintptr_t>(workspace) % 16 != 0 || !own_workspace(workspace, stream)))
    return kInvalid;
  const Call call{.left = left,
                  .right = right,
                  .before = before,
                  .result = result,
                  .d = d,
                  .algo = *algo,
                  .workspace = workspace,
                  .scale = *static_cast<const float*>(alpha),
                  .keep = *static_cast<const float*>(beta)};
  carry_out(stream, [call] { call.multiply(); });
  return CUBLAS_STATUS_SUCCESS;
}
