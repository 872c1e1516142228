#include <algorithm>
#include <cmath>

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/scratch.h"
#include "tensor/cpu/simd.h"

// Shazeer and Stern, "Adafactor", algorithms 4 and 6, cut where ranks add up. A gradient is read three times
// and a parameter twice: 24 bytes an element travel, without a first moment. Threads take runs of lines, whose sums
// are added in their order, so that the bits do not depend on the number of threads.
namespace switchyard::cpu {
namespace {

constexpr std::int64_t kRun = 64;    // lines
constexpr std::int64_t kSpan = 512;  // elements that are summed in f32, before their sum is added in f64

struct ColumnScratch;
struct SumScratch;

// One run of a block's lines, all in one matrix.
struct Run {
  std::int64_t matrix;       // of the parameter
  std::int64_t line, lines;  // of the matrix
  std::int64_t begin;        // of its first element in the parameter's memory
};

// f(run, its number) for all runs of a block that begins at element `begin`.
template <class F>
void for_each_run(const MatrixBlock& block, std::int64_t begin, F f) {
  const std::int64_t each = (block.lines + kRun - 1) / kRun, runs = block.matrices * each;
#pragma omp parallel for schedule(static) if (block.numel() > kParallelElements)
  for (std::int64_t i = 0; i < runs; ++i) {
    const std::int64_t matrix = i / each, line = i % each * kRun;
    f(Run{.matrix = block.matrix + matrix,
          .line = block.line + line,
          .lines = std::min(kRun, block.lines - line),
          .begin = begin + (matrix * block.lines + line) * block.width},
      i);
  }
}

// f(block, its first element) for all blocks of a parameter.
template <class F>
void for_each_block(const AdafactorTensors& tensors, F f) {
  std::int64_t begin = 0;
  for (const MatrixBlock& block : tensors.blocks) {
    f(block, begin);
    begin += block.numel();
  }
}

// Where the numbers of a matrix's rows and columns begin; those of a vector's one row are nowhere.
const float* row_factors(const Tensor& factors, const Matrices& m, std::int64_t matrix) {
  return m.row < 0 ? nullptr : factors.data<float>() + m.row + matrix * m.rows;
}
const float* column_factors(const Tensor& factors, const Matrices& m, std::int64_t matrix) {
  return factors.data<float>() + m.column + matrix * m.columns;
}

// sum of term(j) for j in [0, n)
template <class Term>
double span_sum(std::int64_t n, Term term) {
  double total = 0;
  for (std::int64_t begin = 0; begin < n; begin += kSpan) {
    const std::int64_t end = std::min(begin + kSpan, n);
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t j = begin; j < end; ++j) sum += term(j);
    total += static_cast<double>(sum);
  }
  return total;
}

void add_means(float* means, const AdafactorTensors& t, const MatrixBlock& block, std::int64_t begin,
               float grad_scale) {
  const Matrices& m = t.matrices;
  const std::int64_t width = block.width, each = (block.lines + kRun - 1) / kRun;
  const float* grad = t.grad.data<float>();
  float* columns = scratch<ColumnScratch, float>(block.matrices * each * width);  // by run
  for_each_run(block, begin, [&](const Run& run, std::int64_t i) {
    float* column = columns + i * width;
    std::fill_n(column, width, 0.0f);
    for (std::int64_t line = 0; line < run.lines; ++line) {
      const float* g = grad + run.begin + line * width;
      const double sum = span_sum(width, [g, column, grad_scale](std::int64_t j) {
        const float scaled = grad_scale * g[j], square = scaled * scaled;
        column[j] += square;
        return square;
      });
      if (m.row >= 0)
        means[m.row + run.matrix * m.rows + run.line + line] +=
            static_cast<float>(sum / static_cast<double>(m.columns));
    }
  });
  const std::int64_t all = block.matrices * width;
#pragma omp parallel for schedule(static) if (block.numel() > kParallelElements)
  for (std::int64_t i = 0; i < all; ++i) {
    const std::int64_t matrix = i / width, j = i % width;
    double sum = 0;
    for (std::int64_t run = 0; run < each; ++run)
      sum += static_cast<double>(columns[(matrix * each + run) * width + j]);
    means[m.column + (block.matrix + matrix) * m.columns + block.column + j] +=
        static_cast<float>(sum / static_cast<double>(m.rows));
  }
}

void update_lines(const AdafactorTensors& t, const AdafactorStep& s, const Run& run, const MatrixBlock& block,
                  const Tensor& factors, const Tensor& squares_M2, float grad_scale) {
  const Matrices& m = t.matrices;
  const float* squares = squares_M2.data<float>() + 2 * (m.first + run.matrix);
  const double size = static_cast<double>(m.numel()), rms_u = std::sqrt(static_cast<double>(squares[0]) / size),
               rms_p = std::sqrt(static_cast<double>(squares[1]) / size);
  const double clip = s.clip > 0 ? std::max(1.0, rms_u / s.clip) : 1,
               scale = s.scale_floor > 0 ? std::max<double>(s.scale_floor, rms_p) : 1;
  const float step = static_cast<float>(s.lr * scale / clip) * grad_scale, shrink = s.lr * t.weight_decay;
  const float *row = row_factors(factors, m, run.matrix),
              *column = column_factors(factors, m, run.matrix) + block.column;
  Tensor param = t.param, moment = t.m;
  for (std::int64_t line = 0; line < run.lines; ++line) {
    const std::int64_t begin = run.begin + line * block.width;
    float* p = param.data<float>() + begin;
    const float* g = t.grad.data<float>() + begin;
    const float factor = row ? step * row[run.line + line] : step;
    if (moment) {
      float* v = moment.data<float>() + begin;
#pragma omp simd
      for (std::int64_t j = 0; j < block.width; ++j) {
        v[j] = s.beta1 * v[j] + (1 - s.beta1) * (factor * (g[j] * column[j]));
        p[j] -= v[j] + shrink * p[j];  // 1 - shrink would round 1e-6 by 3%
      }
    } else {
#pragma omp simd
      for (std::int64_t j = 0; j < block.width; ++j) p[j] -= factor * (g[j] * column[j]) + shrink * p[j];
    }
  }
}

}  // namespace

void square_means(Tensor& means, std::span<const AdafactorTensors> tensors, const Tensor& grad_scale_1) {
  const float grad_scale = grad_scale_1.data<float>()[0];
  std::fill_n(means.data<float>(), means.numel(), 0.0f);
  for (const AdafactorTensors& t : tensors)
    for_each_block(t, [&](const MatrixBlock& block, std::int64_t begin) {
      add_means(means.data<float>(), t, block, begin, grad_scale);
    });
}

void moment_factors(Tensor& v, Tensor& means, std::span<const Matrices> all, const AdafactorStep& s,
                    const Tensor& grad_scale_1) {
  if (!std::isfinite(grad_scale_1.data<float>()[0])) return;
  const auto renew = [&](std::int64_t i) {
    float& moment = v.data<float>()[i];
    return moment = s.beta2 * moment + (1 - s.beta2) * (means.data<float>()[i] + s.eps);
  };
#pragma omp parallel for schedule(dynamic)
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Matrices& m = all[i];
    for (std::int64_t c = m.column; c < m.column + m.count * m.columns; ++c)
      means.data<float>()[c] = 1 / std::sqrt(renew(c));
    for (std::int64_t row = m.row; m.row >= 0 && row < m.row + m.count * m.rows; row += m.rows) {
      double sum = 0;
      for (std::int64_t r = row; r < row + m.rows; ++r) sum += static_cast<double>(renew(r));
      const float mean = static_cast<float>(sum / static_cast<double>(m.rows));
      for (std::int64_t r = row; r < row + m.rows; ++r)
        means.data<float>()[r] = 1 / std::sqrt(v.data<float>()[r] / mean);
    }
  }
}

void update_squares(Tensor& squares_M2, std::span<const AdafactorTensors> tensors, const Tensor& factors,
                    const Tensor& grad_scale_1) {
  const float grad_scale = grad_scale_1.data<float>()[0];
  float* squares = squares_M2.data<float>();
  std::fill_n(squares, squares_M2.numel(), 0.0f);
  for (const AdafactorTensors& t : tensors)
    for_each_block(t, [&](const MatrixBlock& block, std::int64_t begin) {
      const Matrices& m = t.matrices;
      const std::int64_t width = block.width, each = (block.lines + kRun - 1) / kRun;
      const float *grad = t.grad.data<float>(), *param = t.param.data<float>();
      double* sums = scratch<SumScratch, double>(2 * block.matrices * each);  // by run
      for_each_run(block, begin, [&](const Run& run, std::int64_t i) {
        const float *row = row_factors(factors, m, run.matrix),
                    *column = column_factors(factors, m, run.matrix) + block.column;
        double of_update = 0, of_param = 0;
        for (std::int64_t line = 0; line < run.lines; ++line) {
          const float *g = grad + run.begin + line * width, *p = param + run.begin + line * width;
          const float factor = row ? grad_scale * row[run.line + line] : grad_scale;
          of_update += span_sum(width, [g, column, factor](std::int64_t j) {
            const float u = factor * (g[j] * column[j]);
            return u * u;
          });
          of_param += span_sum(width, [p](std::int64_t j) { return p[j] * p[j]; });
        }
        sums[2 * i] = of_update;
        sums[2 * i + 1] = of_param;
      });
      for (std::int64_t matrix = 0; matrix < block.matrices; ++matrix) {
        double of_update = 0, of_param = 0;
        for (std::int64_t run = matrix * each; run < (matrix + 1) * each; ++run) {
          of_update += sums[2 * run];
          of_param += sums[2 * run + 1];
        }
        squares[2 * (m.first + block.matrix + matrix)] += static_cast<float>(of_update);
        squares[2 * (m.first + block.matrix + matrix) + 1] += static_cast<float>(of_param);
      }
    });
}

void adafactor(std::span<const AdafactorTensors> tensors, const AdafactorStep& step, const Tensor& factors,
               const Tensor& squares_M2, const Tensor& grad_scale_1) {
  const float grad_scale = grad_scale_1.data<float>()[0];
  if (!std::isfinite(grad_scale)) return;
  for (const AdafactorTensors& t : tensors) {
    for_each_block(t, [&](const MatrixBlock& block, std::int64_t begin) {
      for_each_run(block, begin, [&](const Run& run, std::int64_t) {
        update_lines(t, step, run, block, factors, squares_M2, grad_scale);
      });
    });
    if (t.weight && t.weight->dtype != DType::f32) pack(*t.weight, t.param);
  }
}

}  // namespace switchyard::cpu
