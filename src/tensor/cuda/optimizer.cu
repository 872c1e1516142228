#include "tensor/cuda/block.cuh"
#include "tensor/cuda/kernels.h"
#include "tensor/cuda/work_table.cuh"

// All tensors of a model in one launch.
namespace switchyard::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kUpdateChunk = kThreads * 4 * 4, kSquaresChunk = kThreads * 4 * 8;  // elements; whole packs

struct Update {
  float *p, *m, *v;
  const float* grad;
  __nv_bfloat16* copy;  // null without a compute copy of its own
  std::int64_t numel, first_chunk;
  float shrink;  // lr decay
  bool packs;    // all addresses allow accesses of four elements
};
struct Squares {
  const float* x;
  std::int64_t numel, first_chunk;
  bool packs;
};

struct UpdateScalars {
  float beta1, beta2, eps, step, unbias;  // step: lr / bias1, unbias: 1 / bias2
};

// Loshchilov and Hutter, "Decoupled weight decay regularization", algorithm 2, as cpu/optimizer.cpp computes it:
// 1 - shrink would round 1e-6 by 3%.
__device__ void update(float& p, float& m, float& v, float grad, const UpdateScalars& s, float grad_scale,
                       float shrink) {
  const float g = grad_scale * grad;
  m = s.beta1 * m + (1 - s.beta1) * g;
  v = s.beta2 * v + (1 - s.beta2) * (g * g);
  p -= s.step * m / (sqrtf(v * s.unbias) + s.eps) + shrink * p;
}

// 28 bytes an element travel, 30 with the compute copy.
__global__ void __launch_bounds__(kThreads)
    adamw_kernel(const Update* table, int entries, std::int64_t chunks, UpdateScalars s, const float* grad_scale_1) {
  const float grad_scale = *grad_scale_1;
  if (!isfinite(grad_scale)) return;
  for (std::int64_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
    const Update t = entry_of<&Update::first_chunk>(table, entries, chunk);
    const std::int64_t begin = (chunk - t.first_chunk) * kUpdateChunk, end = min(begin + kUpdateChunk, t.numel),
                       packs_end = t.packs ? end / 4 * 4 : begin;
    for (std::int64_t i = begin + 4 * threadIdx.x; i < packs_end; i += 4 * kThreads) {
      Pack<float> p = load_pack(t.p + i), m = load_pack(t.m + i), v = load_pack(t.v + i);
      const Pack<float> grad = load_pack(t.grad + i);
      for (int j = 0; j < 4; ++j) update(p.v[j], m.v[j], v.v[j], grad.v[j], s, grad_scale, t.shrink);
      store_pack(t.p + i, p);
      store_pack(t.m + i, m);
      store_pack(t.v + i, v);
      if (t.copy) {
        Pack<__nv_bfloat16, 4> copy;
        for (int j = 0; j < 4; ++j) copy.v[j] = __nv_bfloat16(p.v[j]);
        store_pack(t.copy + i, copy);
      }
    }
    for (std::int64_t i = packs_end + threadIdx.x; i < end; i += kThreads) {
      float p = t.p[i], m = t.m[i], v = t.v[i];
      update(p, m, v, t.grad[i], s, grad_scale, t.shrink);
      t.p[i] = p;
      t.m[i] = m;
      t.v[i] = v;
      if (t.copy) t.copy[i] = __nv_bfloat16(p);
    }
  }
}

// partials[chunk] = the chunk's sum of squares: four sums a thread, then those of the block.
__global__ void __launch_bounds__(kThreads)
    squares_kernel(float* partials, const Squares* table, int entries, std::int64_t chunks) {
  SharedMemory shared;
  const Shared<float> parts = shared.take<float>(kWarpSize);
  for (std::int64_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
    const Squares t = entry_of<&Squares::first_chunk>(table, entries, chunk);
    const std::int64_t begin = (chunk - t.first_chunk) * kSquaresChunk, end = min(begin + kSquaresChunk, t.numel),
                       packs_end = t.packs ? end / 4 * 4 : begin;
    float sums[4] = {};
    for (std::int64_t i = begin + 4 * threadIdx.x; i < packs_end; i += 4 * kThreads) {
      const Pack<float> x = load_pack(t.x + i);
      for (int j = 0; j < 4; ++j) sums[j] += x.v[j] * x.v[j];
    }
    for (std::int64_t i = packs_end + threadIdx.x; i < end; i += kThreads) sums[0] += t.x[i] * t.x[i];
    const float sum = block_sum((sums[0] + sums[1]) + (sums[2] + sums[3]), parts);
    if (threadIdx.x == 0) partials[chunk] = sum;
  }
}

// One block: y = the sum of the chunks', in double, since a large model has a million of them.
__global__ void __launch_bounds__(kThreads) squares_total_kernel(float* y, const float* partials, std::int64_t chunks) {
  SharedMemory shared;
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < chunks; i += kThreads) sum += double(partials[i]);
  sum = block_sum(sum, shared.take<double>(kWarpSize));
  if (threadIdx.x == 0) *y = float(sum);
}

__global__ void clip_factor_kernel(float* factor, const float* squares, int count, float clip) {
  double sum = 0;
  for (int i = 0; i < count; ++i) sum += double(squares[i]);
  const double norm = sqrt(sum), wanted = clip > 0 ? double(clip) / (norm + 1e-6) : 1.0;
  *factor = isfinite(norm) ? float(wanted < 1 ? wanted : 1.0) : NAN;
}

}  // namespace

void adamw(std::span<const AdamWTensors> tensors, const AdamWStep& step, const Tensor& grad_scale_1) {
  WorkTable<Update> table;
  for (const AdamWTensors& t : tensors) {
    Tensor param = t.param, first = t.m, second = t.v;
    const bool copies = t.weight && t.weight->dtype != DType::f32;
    Update entry{.p = ptr<float>(param),
                 .m = ptr<float>(first),
                 .v = ptr<float>(second),
                 .grad = ptr<float>(t.grad),
                 .copy = copies ? ptr<__nv_bfloat16>(t.weight->plain) : nullptr,
                 .numel = param.numel(),
                 .first_chunk = 0,
                 .shrink = step.lr * t.weight_decay,
                 .packs = false};
    entry.packs = aligned(entry.p, 16) && aligned(entry.m, 16) && aligned(entry.v, 16) && aligned(entry.grad, 16) &&
                  aligned(entry.copy, 8);
    table.add(entry, ceil_div(entry.numel, kUpdateChunk));
  }
  if (table.chunks == 0) return;
  Context& on = context(grad_scale_1.device());
  const UpdateScalars scalars{.beta1 = step.beta1,
                              .beta2 = step.beta2,
                              .eps = step.eps,
                              .step = step.lr / step.bias1,
                              .unbias = 1 / step.bias2};
  launch(on, "adamw", adamw_kernel, grid_for(on, table.chunks, 1), kThreads, 0,
         on.upload(std::span<const Update>(table.entries)), int(table.entries.size()), table.chunks, scalars,
         ptr<float>(grad_scale_1));
}

void sum_squares(Tensor& y_1, std::span<const Tensor> xs) {
  WorkTable<Squares> table;
  for (const Tensor& x : xs)
    table.add({.x = ptr<float>(x), .numel = x.numel(), .first_chunk = 0, .packs = aligned(ptr<float>(x), 16)},
              ceil_div(x.numel(), kSquaresChunk));
  Context& on = context(y_1.device());
  float* const partials = on.scratch<float>(max(table.chunks, std::int64_t{1}));
  if (table.chunks > 0)
    launch(on, "sum_squares", squares_kernel, grid_for(on, table.chunks, 1), kThreads,
           shared_bytes_of<float>(kWarpSize), partials, on.upload(std::span<const Squares>(table.entries)),
           int(table.entries.size()), table.chunks);
  launch(on, "sum_squares_total", squares_total_kernel, 1, kThreads, shared_bytes_of<double>(kWarpSize),
         ptr<float>(y_1), partials, table.chunks);
}

void clip_factor(Tensor& factor_1, const Tensor& squares, float clip) {
  launch(context(factor_1.device()), "clip_factor", clip_factor_kernel, 1, 1, 0, ptr<float>(factor_1),
         ptr<float>(squares), int(squares.numel()), clip);
}

}  // namespace switchyard::cuda
