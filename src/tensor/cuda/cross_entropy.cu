#include <cfloat>

#include "tensor/cuda/block.cuh"
#include "tensor/cuda/kernels.h"

namespace switchyard::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kAtOnce = 4;  // packs that a thread has on their way together

// A row as elements before the first address that packs of N may have, packs, and elements after them: rows of an odd
// number of words begin anywhere.
template <int N>
struct Split {
  int words, head, packs;

  // Of a row that is read, and written to where dx is not null.
  template <class Out, class In>
  __device__ Split(const Out* dx, const In* x, int words) : words(words), head(words), packs(0) {
    const int ahead = (N - int(reinterpret_cast<std::uintptr_t>(x) / sizeof(In) % N)) % N;
    if (ahead > words || reinterpret_cast<std::uintptr_t>(dx ? dx + ahead : nullptr) % (N * sizeof(Out)) != 0) return;
    head = ahead;
    packs = (words - ahead) / N;
  }

  // single(v) for this thread's lone elements, several(v, pack) for its packs, each with the index of the first word.
  // Backwards, the packs come last to first: the end of a row just read is still in the caches.
  template <bool backwards, class In, class Single, class Several>
  __device__ void each(const In* x, Single single, Several several) const {
    const int threads = int(blockDim.x);
    for (int v = int(threadIdx.x); v < head; v += threads) single(v);
    for (int v = head + packs * N + int(threadIdx.x); v < words; v += threads) single(v);
    const auto first_word = [&](int p) { return head + (backwards ? packs - 1 - p : p) * N; };
    for (int begin = int(threadIdx.x); begin < packs; begin += threads * kAtOnce) {
      Pack<In, N> ahead[kAtOnce];
      for (int i = 0; i < kAtOnce; ++i)
        if (begin + i * threads < packs) ahead[i] = load_pack<N>(x + first_word(begin + i * threads));
      for (int i = 0; i < kAtOnce; ++i)
        if (begin + i * threads < packs) several(first_word(begin + i * threads), ahead[i]);
    }
  }
};

// sum = sum e^(x - max) over what was added, in one pass: what came before is scaled when the largest changes.
struct Online {
  float max = -FLT_MAX, sum = 0;  // finite, so that an infinitely small logit adds nothing

  template <int N>
  __device__ void add(const float (&x)[N]) {
    float largest = x[0];
    for (int i = 1; i < N; ++i) largest = fmaxf(largest, x[i]);
    if (largest > max) {
      sum *= expf(max - largest);
      max = largest;
    }
    for (int i = 0; i < N; ++i) sum += expf(x[i] - max);
  }
};

// What a row's exponentials add up to, relative to the largest logit, as on the CPU: the log-sum-exp itself would round
// off what a loss near 0 is made of. In every thread of the block.
struct Exponentials {
  float max, sum;
};
template <int N, class In>
__device__ Exponentials exponentials(const Split<N>& split, const In* x, Shared<float> parts) {
  Online online;
  split.template each<false>(
      x, [&](int v) { online.add<1>({float(x[v])}); },
      [&](int, const Pack<In, N>& pack) {
        float values[N];
        for (int i = 0; i < N; ++i) values[i] = float(pack.v[i]);
        online.add<N>(values);
      });
  const float max = block_max(online.max, parts);
  return {max, block_sum(online.sum * expf(online.max - max), parts)};
}

// Reads each word before it is written by the same thread, so that dx may be x where their type is the same.
template <int N, class Out, class In>
__device__ void write_gradient(const Split<N>& split, Out* dx, const In* x, int wanted, Exponentials e, float logit,
                               float scale) {
  const float factor = scale / e.sum, at_target = scale * (expf(logit - e.max) / e.sum - 1);
  const auto gradient = [&](int v, In value) {
    return Out(v == wanted ? at_target : factor * expf(float(value) - e.max));
  };
  split.template each<true>(
      x, [&](int v) { dx[v] = gradient(v, x[v]); },
      [&](int v, const Pack<In, N>& pack) {
        Pack<Out, N> out;
        for (int i = 0; i < N; ++i) out.v[i] = gradient(v + i, pack.v[i]);
        store_pack(dx + v, out);
      });
}
template <class Out>
__device__ void write_zeros(Out* dx, int words) {
  for (int v = int(threadIdx.x); v < words; v += int(blockDim.x)) dx[v] = Out(0.0f);
}

// One block a row, in these three.
template <int N, class Out, class In>
__global__ void __launch_bounds__(kThreads)
    cross_entropy_kernel(float* loss, Out* dlogits, const In* logits, const int* target, int words, float scale) {
  const Shared<float> parts = SharedMemory().take<float>(kWarpSize);
  const std::int64_t begin = std::int64_t{blockIdx.x} * words;
  const In* x = logits + begin;
  Out* dx = dlogits ? dlogits + begin : nullptr;
  const int wanted = target[blockIdx.x];
  if (wanted < 0) {
    if (threadIdx.x == 0) loss[blockIdx.x] = 0;
    if (dx) write_zeros(dx, words);
    return;
  }
  const Split<N> split(dx, x, words);
  const float logit = float(x[wanted]);  // before anything is written
  const Exponentials e = exponentials(split, x, parts);
  if (threadIdx.x == 0) loss[blockIdx.x] = logf(e.sum) - (logit - e.max);
  if (dx) write_gradient(split, dx, x, wanted, e, logit, scale);
}

template <int N>
__global__ void __launch_bounds__(kThreads)
    cross_entropy_part_kernel(float* part_R4, const float* logits, const int* target, int words) {
  const Shared<float> parts = SharedMemory().take<float>(kWarpSize);
  const float* x = logits + std::int64_t{blockIdx.x} * words;
  const Exponentials e = exponentials(Split<N>(static_cast<float*>(nullptr), x, words), x, parts);
  if (threadIdx.x > 0) return;
  const int wanted = target[blockIdx.x];
  float* const part = part_R4 + std::int64_t{blockIdx.x} * 4;
  part[0] = e.max;
  part[1] = e.sum;
  part[2] = wanted >= 0 ? x[wanted] : 0;
  part[3] = wanted >= 0 ? 1 : 0;
}

template <int N, class Out>
__global__ void __launch_bounds__(kThreads)
    cross_entropy_whole_kernel(float* loss, Out* dlogits, const float* logits, const int* target, const float* part_PR4,
                               int ranks, int words, float scale) {
  const std::int64_t row = blockIdx.x;
  const auto part = [=](int p) { return part_PR4 + (std::int64_t{p} * gridDim.x + row) * 4; };
  Exponentials e{part(0)[0], 0};
  for (int p = 1; p < ranks; ++p) e.max = fmaxf(e.max, part(p)[0]);
  float logit = 0;
  bool found = false;
  for (int p = 0; p < ranks; ++p) {
    e.sum += part(p)[1] * expf(part(p)[0] - e.max);
    if (part(p)[3] > 0) logit = part(p)[2], found = true;
  }
  if (threadIdx.x == 0) loss[row] = found ? logf(e.sum) - (logit - e.max) : 0;
  if (!dlogits) return;
  Out* const dx = dlogits + row * words;
  if (!found) return write_zeros(dx, words);
  const float* const x = logits + row * words;
  write_gradient(Split<N>(dx, x, words), dx, x, target[row], e, logit, scale);
}

// Each block's sum of its strides, in double; what y held is added where asked.
template <class Y, class X>
__global__ void __launch_bounds__(kThreads) sum_kernel(Y* y, const X* x, std::int64_t n, Into into) {
  const Shared<double> parts = SharedMemory().take<double>(kWarpSize);
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  double sum = 0;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += stride) sum += double(x[i]);
  sum = block_sum(sum, parts);
  if (threadIdx.x == 0) y[blockIdx.x] = Y(into == Into::accumulate ? double(y[blockIdx.x]) + sum : sum);
}

int threads_for(int words, int pack) {
  const int wanted = ceil_div(words, pack * kAtOnce * kWarpSize) * kWarpSize;
  return wanted < kThreads ? wanted : kThreads;
}

}  // namespace

void cross_entropy(Tensor& loss_R, Tensor& dlogits_RV, const Tensor& logits_RV, const Tensor& target_R, float scale) {
  Context& on = context(loss_R.device());
  const std::int64_t rows = logits_RV.dim(0);
  const int words = int(logits_RV.dim(1));
  dispatch_float(logits_RV.dtype(), "cross_entropy", [&](auto in) {
    dispatch_float(dlogits_RV ? dlogits_RV.dtype() : logits_RV.dtype(), "cross_entropy", [&](auto out) {
      using In = decltype(in);
      using Out = decltype(out);
      constexpr int kPack = 16 / int(sizeof(In) > sizeof(Out) ? sizeof(In) : sizeof(Out));
      launch(on, "cross_entropy", cross_entropy_kernel<kPack, Out, In>, unsigned(rows), threads_for(words, kPack),
             shared_bytes_of<float>(kWarpSize), ptr<float>(loss_R), ptr_or_null<Out>(dlogits_RV), ptr<In>(logits_RV),
             ptr<int>(target_R), words, scale);
    });
  });
}

void cross_entropy_part(Tensor& part_R4, const Tensor& logits_RV, const Tensor& target_R) {
  const int words = int(logits_RV.dim(1));
  launch(context(part_R4.device()), "cross_entropy_part", cross_entropy_part_kernel<4>, unsigned(logits_RV.dim(0)),
         threads_for(words, 4), shared_bytes_of<float>(kWarpSize), ptr<float>(part_R4), ptr<float>(logits_RV),
         ptr<int>(target_R), words);
}

void cross_entropy_whole(Tensor& loss_R, Tensor& dlogits_RV, const Tensor& logits_RV, const Tensor& target_R,
                         const Tensor& part_PR4, float scale) {
  const int words = int(logits_RV.dim(1));
  dispatch_float(dlogits_RV ? dlogits_RV.dtype() : DType::f32, "cross_entropy_whole", [&](auto out) {
    using Out = decltype(out);
    launch(context(loss_R.device()), "cross_entropy_whole", cross_entropy_whole_kernel<4, Out>,
           unsigned(logits_RV.dim(0)), threads_for(words, 4), 0, ptr<float>(loss_R), ptr_or_null<Out>(dlogits_RV),
           ptr<float>(logits_RV), ptr<int>(target_R), ptr<float>(part_PR4), int(part_PR4.dim(0)), words, scale);
  });
}

void sum(Tensor& y_1, const Tensor& x, Into into) {
  constexpr std::int64_t kOneBlock = 16 * kThreads;  // fewer elements are summed sooner than a second kernel starts
  Context& on = context(y_1.device());
  const std::int64_t n = x.numel();
  const std::size_t shared_bytes = shared_bytes_of<double>(kWarpSize);
  float* y = ptr<float>(y_1);
  if (n <= kOneBlock)
    return launch(on, "sum", sum_kernel<float, float>, 1, kThreads, shared_bytes, y, ptr<float>(x), n, into);
  const unsigned blocks = grid_for(on, n, 4 * kThreads, 2);
  double* const parts = on.scratch<double>(blocks);
  launch(on, "sum", sum_kernel<double, float>, blocks, kThreads, shared_bytes, parts, ptr<float>(x), n,
         Into::overwrite);
  launch(on, "sum", sum_kernel<float, double>, 1, kThreads, shared_bytes, y, parts, std::int64_t{blocks}, into);
}

}  // namespace switchyard::cuda
