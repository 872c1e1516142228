#include "tensor/cuda/block.cuh"
#include "tensor/cuda/kernels.h"
#include "tensor/cuda/work_table.cuh"

// Adafactor as cpu/adafactor.cpp has it. All parameters of a model in one launch: blocks of matrices are cut into
// tiles, numbered through all of them. A tile leaves its sums in scratch, and whoever wants a total adds those of its
// tiles in their order. A warp has a line of a tile at a time, a lane the same columns of each.
namespace switchyard::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarpSize, kPacks = 4;
constexpr int kTileLines = 256, kTileColumns = kPacks * 4 * kWarpSize;
constexpr std::int64_t kMomentChunk = kThreads * 16;

// One block of a parameter's matrices. Sums and matrices are numbered by parameter, at its first block.
struct Part {
  const float* grad;  // this and the others: of its first element
  float *p, *m;
  __nv_bfloat16* copy;  // null without a compute copy of its own
  Matrices whole;
  MatrixBlock block;
  std::int64_t first_tile, first_sum, first_matrix;  // of all parts': its first chunk of each kind of work
  std::int64_t row_sums, column_sums;                // where its tiles' begin in scratch
  int first_part, parts;                             // those of the same parameter
  float shrink;                                      // lr decay
  bool packs;                                        // lines begin where accesses of four elements may

  __host__ __device__ std::int64_t line_tiles() const { return ceil_div(block.lines, std::int64_t{kTileLines}); }
  __host__ __device__ std::int64_t column_tiles() const { return ceil_div(block.width, std::int64_t{kTileColumns}); }
};

struct Parts {
  std::vector<Part> entries;
  std::int64_t tiles = 0, sums = 0, matrices = 0, scratch = 0;
};

Parts parts_of(std::span<const AdafactorTensors> tensors, float lr) {
  Parts all;
  for (const AdafactorTensors& t : tensors) {
    Tensor param = t.param, moment = t.m;
    const Matrices& w = t.matrices;
    const int first = int(all.entries.size());
    const bool copies = t.weight && t.weight->dtype != DType::f32;
    std::int64_t begin = 0;
    for (const MatrixBlock& block : t.blocks) {
      Part part{.grad = ptr<float>(t.grad) + begin,
                .p = ptr<float>(param) + begin,
                .m = moment ? ptr<float>(moment) + begin : nullptr,
                .copy = copies ? ptr<__nv_bfloat16>(t.weight->plain) + begin : nullptr,
                .whole = w,
                .block = block,
                .first_tile = all.tiles,
                .first_sum = all.sums,
                .first_matrix = all.matrices,
                .row_sums = all.scratch,
                .column_sums = 0,
                .first_part = first,
                .parts = int(t.blocks.size()),
                .shrink = lr * t.weight_decay,
                .packs = false};
      part.packs = block.width % 4 == 0 && aligned(part.grad, 16) && aligned(part.p, 16) && aligned(part.m, 16) &&
                   aligned(part.copy, 8);
      part.column_sums = part.row_sums + block.matrices * block.lines * part.column_tiles();
      all.scratch = part.column_sums + block.matrices * part.line_tiles() * block.width;
      all.tiles += block.matrices * part.line_tiles() * part.column_tiles();
      if (begin == 0) {
        all.sums += ceil_div(w.count * (w.columns + (w.row < 0 ? 0 : w.rows)), std::int64_t{kThreads});
        all.matrices += w.count;
      }
      all.entries.push_back(part);
      begin += block.numel();
    }
  }
  return all;
}

struct Tile {
  std::int64_t matrix, line, column;  // the first ones, counted from the block's
  int lines, width;
  std::int64_t begin;  // first element
};
__device__ Tile tile_of(const Part& t, std::int64_t i) {
  const std::int64_t across = t.column_tiles(), down = t.line_tiles();
  Tile tile{};
  tile.matrix = i / (across * down);
  tile.line = i / across % down * kTileLines;
  tile.column = i % across * kTileColumns;
  tile.lines = int(min(std::int64_t{kTileLines}, t.block.lines - tile.line));
  tile.width = int(min(std::int64_t{kTileColumns}, t.block.width - tile.column));
  tile.begin = (tile.matrix * t.block.lines + tile.line) * t.block.width + tile.column;
  return tile;
}
// The lane's k-th four columns of a tile.
__device__ int columns_of_lane(int k) { return 4 * (k * kWarpSize + lane_id()); }

// Four elements, of which there are `left`; zeros behind them.
__device__ Pack<float> load_four(const float* x, int left, bool packs) {
  if (packs && left >= 4) return load_pack(x);
  Pack<float> four{};
  for (int j = 0; j < 4; ++j)
    if (j < left) four.v[j] = x[j];
  return four;
}
template <class T>
__device__ void store_four(T* x, const Pack<T, 4>& four, int left, bool packs) {
  if (packs && left >= 4) return store_pack(x, four);
  for (int j = 0; j < 4; ++j)
    if (j < left) x[j] = four.v[j];
}

// The factors of a tile: of each line, and of the lane's columns.
struct Factors {
  const float* row;  // null: all are 1
  Pack<float> column[kPacks];

  __device__ Factors(const float* factors, const Part& t, const Tile& tile) {
    const std::int64_t matrix = t.block.matrix + tile.matrix;
    row = t.whole.row < 0 ? nullptr : factors + t.whole.row + matrix * t.whole.rows + t.block.line + tile.line;
    const float* columns = factors + t.whole.column + matrix * t.whole.columns + t.block.column + tile.column;
    for (int k = 0; k < kPacks; ++k)
      column[k] = load_four(columns + columns_of_lane(k), tile.width - columns_of_lane(k), false);
  }
  __device__ float of_line(int line) const { return row ? row[line] : 1; }
};

__global__ void __launch_bounds__(kThreads)
    square_sums_kernel(float* sums, const Part* table, int parts, std::int64_t tiles, const float* grad_scale_1) {
  SharedMemory shared;
  const Shared<float> columns = shared.take<float>(kWarps * kTileColumns);
  const float grad_scale = *grad_scale_1;
  for (std::int64_t chunk = blockIdx.x; chunk < tiles; chunk += gridDim.x) {
    const Part t = entry_of<&Part::first_tile>(table, parts, chunk);
    const Tile tile = tile_of(t, chunk - t.first_tile);
    Pack<float> column[kPacks] = {};
    for (int line = warp_id(); line < tile.lines; line += kWarps) {
      const float* g = t.grad + tile.begin + line * t.block.width;
      float row = 0;
      for (int k = 0; k < kPacks; ++k) {
        const int at = columns_of_lane(k);
        const Pack<float> x = load_four(g + at, tile.width - at, t.packs);
        for (int j = 0; j < 4; ++j) {
          const float scaled = grad_scale * x.v[j], square = scaled * scaled;
          column[k].v[j] += square;
          row += square;
        }
      }
      row = warp_sum(row);
      if (lane_id() == 0)
        sums[t.row_sums + (tile.matrix * t.block.lines + tile.line + line) * t.column_tiles() +
             tile.column / kTileColumns] = row;
    }
    __syncthreads();  // columns may still be read from the tile before
    for (int k = 0; k < kPacks; ++k)
      for (int j = 0; j < 4; ++j) columns[warp_id() * kTileColumns + columns_of_lane(k) + j] = column[k].v[j];
    __syncthreads();
    float* const to =
        sums + t.column_sums + (tile.matrix * t.line_tiles() + tile.line / kTileLines) * t.block.width + tile.column;
    for (int c = int(threadIdx.x); c < tile.width; c += kThreads) {
      float sum = 0;
      for (int warp = 0; warp < kWarps; ++warp) sum += columns[warp * kTileColumns + c];
      to[c] = sum;
    }
  }
}

// A thread for each row and column of each parameter.
__global__ void __launch_bounds__(kThreads)
    square_means_kernel(float* means, const float* sums, const Part* table, int parts, std::int64_t chunks) {
  for (std::int64_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
    const Part& first = entry_of<&Part::first_sum>(table, parts, chunk);
    const Matrices& w = first.whole;
    const std::int64_t i = (chunk - first.first_sum) * kThreads + threadIdx.x, rows = w.row < 0 ? 0 : w.count * w.rows;
    if (i >= rows + w.count * w.columns) continue;
    const bool is_row = i < rows;
    const std::int64_t n = is_row ? i : i - rows, extent = is_row ? w.rows : w.columns, matrix = n / extent,
                       place = n % extent;
    double sum = 0;
    for (int p = first.first_part; p < first.first_part + first.parts; ++p) {
      const Part& t = table[p];
      const std::int64_t m = matrix - t.block.matrix, at = place - (is_row ? t.block.line : t.block.column);
      if (m < 0 || m >= t.block.matrices || at < 0 || at >= (is_row ? t.block.lines : t.block.width)) continue;
      const std::int64_t count = is_row ? t.column_tiles() : t.line_tiles();
      const float* const from = is_row ? sums + t.row_sums + (m * t.block.lines + at) * count
                                       : sums + t.column_sums + m * count * t.block.width + at;
      for (std::int64_t tile = 0; tile < count; ++tile) sum += double(from[tile * (is_row ? 1 : t.block.width)]);
    }
    means[(is_row ? w.row : w.column) + n] = float(sum / double(is_row ? w.columns : w.rows));
  }
}

// The numbers of a parameter's rows, or of its columns.
struct Moments {
  std::int64_t begin, matrices, extent, first_chunk;
  bool is_rows;

  __host__ __device__ std::int64_t chunks_each() const { return ceil_div(extent, kMomentChunk); }
};
// f(i) for the thread's part of the chunk, numbers i; all in one matrix.
template <class F>
__device__ void for_each_moment(const Moments& t, std::int64_t chunk, F f) {
  const std::int64_t each = t.chunks_each(), matrix = chunk / each, first = chunk % each * kMomentChunk,
                     end = min(first + kMomentChunk, t.extent);
  for (std::int64_t i = first + threadIdx.x; i < end; i += kThreads) f(t.begin + matrix * t.extent + i);
}

// The moments anew, the factors of columns, and the sum of a chunk of rows.
__global__ void __launch_bounds__(kThreads)
    moments_kernel(float* v, float* means, float* sums, const Moments* table, int entries, std::int64_t chunks,
                   float beta2, float eps, const float* grad_scale_1) {
  SharedMemory shared;
  const Shared<float> parts = shared.take<float>(kWarpSize);
  if (!isfinite(*grad_scale_1)) return;
  for (std::int64_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
    const Moments& t = entry_of<&Moments::first_chunk>(table, entries, chunk);
    float sum = 0;
    for_each_moment(t, chunk - t.first_chunk, [&](std::int64_t i) {
      v[i] = beta2 * v[i] + (1 - beta2) * (means[i] + eps);
      sum += v[i];
      if (!t.is_rows) means[i] = 1 / sqrtf(v[i]);
    });
    sum = block_sum(sum, parts);
    if (threadIdx.x == 0) sums[chunk] = sum;
  }
}

__global__ void __launch_bounds__(kThreads)
    row_factors_kernel(float* means, const float* v, const float* sums, const Moments* table, int entries,
                       std::int64_t chunks, const float* grad_scale_1) {
  if (!isfinite(*grad_scale_1)) return;
  for (std::int64_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
    const Moments& t = entry_of<&Moments::first_chunk>(table, entries, chunk);
    if (!t.is_rows) continue;
    const std::int64_t each = t.chunks_each(), here = chunk - t.first_chunk;
    double sum = 0;
    for (std::int64_t i = 0; i < each; ++i) sum += double(sums[t.first_chunk + here / each * each + i]);
    const float mean = float(sum / double(t.extent));
    for_each_moment(t, here, [&](std::int64_t i) { means[i] = 1 / sqrtf(v[i] / mean); });
  }
}

// Two sums a tile: of squares of its updates and of its parameters.
__global__ void __launch_bounds__(kThreads)
    update_squares_kernel(float* sums, const Part* table, int parts, std::int64_t tiles, const float* factors,
                          const float* grad_scale_1) {
  SharedMemory shared;
  const Shared<float> shared_sums = shared.take<float>(kWarpSize);
  const float grad_scale = *grad_scale_1;
  for (std::int64_t chunk = blockIdx.x; chunk < tiles; chunk += gridDim.x) {
    const Part t = entry_of<&Part::first_tile>(table, parts, chunk);
    const Tile tile = tile_of(t, chunk - t.first_tile);
    const Factors factor(factors, t, tile);
    float of_update = 0, of_param = 0;
    for (int line = warp_id(); line < tile.lines; line += kWarps) {
      const std::int64_t begin = tile.begin + line * t.block.width;
      const float scale = grad_scale * factor.of_line(line);
      for (int k = 0; k < kPacks; ++k) {
        const int at = columns_of_lane(k);
        const Pack<float> g = load_four(t.grad + begin + at, tile.width - at, t.packs),
                          p = load_four(t.p + begin + at, tile.width - at, t.packs);
        for (int j = 0; j < 4; ++j) {
          const float u = scale * (g.v[j] * factor.column[k].v[j]);
          of_update += u * u;
          of_param += p.v[j] * p.v[j];
        }
      }
    }
    of_update = block_sum(of_update, shared_sums);
    of_param = block_sum(of_param, shared_sums);
    if (threadIdx.x == 0) {
      sums[2 * chunk] = of_update;
      sums[2 * chunk + 1] = of_param;
    }
  }
}

// A block for each matrix of each parameter.
__global__ void __launch_bounds__(kThreads)
    squares_of_matrices_kernel(float* squares, const float* sums, const Part* table, int parts, std::int64_t matrices) {
  SharedMemory shared;
  const Shared<double> shared_sums = shared.take<double>(kWarpSize);
  for (std::int64_t chunk = blockIdx.x; chunk < matrices; chunk += gridDim.x) {
    const Part& first = entry_of<&Part::first_matrix>(table, parts, chunk);
    const std::int64_t matrix = chunk - first.first_matrix;
    double of_update = 0, of_param = 0;
    for (int p = first.first_part; p < first.first_part + first.parts; ++p) {
      const Part& t = table[p];
      const std::int64_t m = matrix - t.block.matrix, tiles = t.line_tiles() * t.column_tiles();
      if (m < 0 || m >= t.block.matrices) continue;
      for (std::int64_t i = threadIdx.x; i < tiles; i += kThreads) {
        of_update += double(sums[2 * (t.first_tile + m * tiles + i)]);
        of_param += double(sums[2 * (t.first_tile + m * tiles + i) + 1]);
      }
    }
    of_update = block_sum(of_update, shared_sums);
    of_param = block_sum(of_param, shared_sums);
    if (threadIdx.x == 0) {
      squares[2 * (first.whole.first + matrix)] = float(of_update);
      squares[2 * (first.whole.first + matrix) + 1] = float(of_param);
    }
  }
}

// lr max(scale_floor, RMS(param)) / max(1, RMS(update) / clip) of a matrix.
__device__ float step_of(const AdafactorStep& s, const float* squares, double size) {
  const double rms_u = sqrt(double(squares[0]) / size), rms_p = sqrt(double(squares[1]) / size);
  const double clip = s.clip > 0 && rms_u > double(s.clip) ? rms_u / double(s.clip) : 1,
               scale = s.scale_floor > 0 ? (rms_p > double(s.scale_floor) ? rms_p : double(s.scale_floor)) : 1;
  return float(double(s.lr) * scale / clip);
}

__global__ void __launch_bounds__(kThreads)
    adafactor_kernel(const Part* table, int parts, std::int64_t tiles, AdafactorStep s, const float* factors,
                     const float* squares, const float* grad_scale_1) {
  const float grad_scale = *grad_scale_1;
  if (!isfinite(grad_scale)) return;
  for (std::int64_t chunk = blockIdx.x; chunk < tiles; chunk += gridDim.x) {
    const Part t = entry_of<&Part::first_tile>(table, parts, chunk);
    const Tile tile = tile_of(t, chunk - t.first_tile);
    const Factors factor(factors, t, tile);
    const float step = grad_scale * step_of(s, squares + 2 * (t.whole.first + t.block.matrix + tile.matrix),
                                            double(t.whole.rows) * double(t.whole.columns));
    for (int line = warp_id(); line < tile.lines; line += kWarps) {
      const std::int64_t begin = tile.begin + line * t.block.width;
      const float scale = step * factor.of_line(line);
      for (int k = 0; k < kPacks; ++k) {
        const int at = columns_of_lane(k), left = tile.width - at;
        if (left <= 0) continue;
        const Pack<float> g = load_four(t.grad + begin + at, left, t.packs);
        Pack<float> p = load_four(t.p + begin + at, left, t.packs), change;
        for (int j = 0; j < 4; ++j) change.v[j] = scale * (g.v[j] * factor.column[k].v[j]);
        if (t.m) {
          const Pack<float> m = load_four(t.m + begin + at, left, t.packs);
          for (int j = 0; j < 4; ++j) change.v[j] = s.beta1 * m.v[j] + (1 - s.beta1) * change.v[j];
          store_four(t.m + begin + at, change, left, t.packs);
        }
        for (int j = 0; j < 4; ++j) p.v[j] -= change.v[j] + t.shrink * p.v[j];  // 1 - shrink would round 1e-6 by 3%
        store_four(t.p + begin + at, p, left, t.packs);
        if (t.copy) {
          Pack<__nv_bfloat16, 4> copy;
          for (int j = 0; j < 4; ++j) copy.v[j] = __nv_bfloat16(p.v[j]);
          store_four(t.copy + begin + at, copy, left, t.packs);
        }
      }
    }
  }
}

}  // namespace

void square_means(Tensor& means, std::span<const AdafactorTensors> tensors, const Tensor& grad_scale_1) {
  zero(means);
  const Parts all = parts_of(tensors, 0);
  if (all.tiles == 0) return;
  Context& on = context(means.device());
  float* const sums = on.scratch<float>(all.scratch);
  const Part* const table = on.upload(std::span<const Part>(all.entries));
  const int parts = int(all.entries.size());
  launch(on, "square_sums", square_sums_kernel, grid_for(on, all.tiles, 1), kThreads,
         shared_bytes_of<float>(kWarps * kTileColumns), sums, table, parts, all.tiles, ptr<float>(grad_scale_1));
  launch(on, "square_means", square_means_kernel, grid_for(on, all.sums, 1), kThreads, 0, ptr<float>(means), sums,
         table, parts, all.sums);
}

void moment_factors(Tensor& v, Tensor& means, std::span<const Matrices> all, const AdafactorStep& s,
                    const Tensor& grad_scale_1) {
  WorkTable<Moments> table;
  const auto add = [&table](std::int64_t begin, std::int64_t matrices, std::int64_t extent, bool is_rows) {
    const Moments entry{.begin = begin, .matrices = matrices, .extent = extent, .first_chunk = 0, .is_rows = is_rows};
    table.add(entry, matrices * entry.chunks_each());
  };
  for (const Matrices& m : all) {
    if (m.row >= 0) add(m.row, m.count, m.rows, true);
    add(m.column, m.count, m.columns, false);
  }
  if (table.chunks == 0) return;
  Context& on = context(v.device());
  float* const sums = on.scratch<float>(table.chunks);
  const Moments* const entries = on.upload(std::span<const Moments>(table.entries));
  const int count = int(table.entries.size());
  const unsigned grid = grid_for(on, table.chunks, 1);
  launch(on, "moments", moments_kernel, grid, kThreads, shared_bytes_of<float>(kWarpSize), ptr<float>(v),
         ptr<float>(means), sums, entries, count, table.chunks, s.beta2, s.eps, ptr<float>(grad_scale_1));
  launch(on, "row_factors", row_factors_kernel, grid, kThreads, 0, ptr<float>(means), ptr<float>(v), sums, entries,
         count, table.chunks, ptr<float>(grad_scale_1));
}

void update_squares(Tensor& squares_M2, std::span<const AdafactorTensors> tensors, const Tensor& factors,
                    const Tensor& grad_scale_1) {
  zero(squares_M2);
  const Parts all = parts_of(tensors, 0);
  if (all.tiles == 0) return;
  Context& on = context(squares_M2.device());
  float* const sums = on.scratch<float>(2 * all.tiles);
  const Part* const table = on.upload(std::span<const Part>(all.entries));
  const int parts = int(all.entries.size());
  launch(on, "update_squares", update_squares_kernel, grid_for(on, all.tiles, 1), kThreads,
         shared_bytes_of<float>(kWarpSize), sums, table, parts, all.tiles, ptr<float>(factors),
         ptr<float>(grad_scale_1));
  launch(on, "squares_of_matrices", squares_of_matrices_kernel, grid_for(on, all.matrices, 1), kThreads,
         shared_bytes_of<double>(kWarpSize), ptr<float>(squares_M2), sums, table, parts, all.matrices);
}

void adafactor(std::span<const AdafactorTensors> tensors, const AdafactorStep& step, const Tensor& factors,
               const Tensor& squares_M2, const Tensor& grad_scale_1) {
  const Parts all = parts_of(tensors, step.lr);
  if (all.tiles == 0) return;
  Context& on = context(factors.device());
  launch(on, "adafactor", adafactor_kernel, grid_for(on, all.tiles, 1), kThreads, 0,
         on.upload(std::span<const Part>(all.entries)), int(all.entries.size()), all.tiles, step, ptr<float>(factors),
         ptr<float>(squares_M2), ptr<float>(grad_scale_1));
}

}  // namespace switchyard::cuda
