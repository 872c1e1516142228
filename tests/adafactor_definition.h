#pragma once

#include <cmath>
#include <vector>

#include "tensor/kernels.h"

// Shazeer and Stern, "Adafactor" (arXiv 1804.04235), algorithms 4 and 6 on one matrix, in f64, with means in place of
// sums (which changes nothing: their ratio is what counts). A vector is a matrix of one row whose moments are not
// factored (algorithm 5).
namespace switchyard::test {

struct AdafactorMatrix {
  std::int64_t rows, columns;
  std::vector<double> p;
  bool is_vector = false;
  std::vector<double> m = std::vector<double>(p.size()), of_row = std::vector<double>(std::size_t(rows)),
                      of_column = std::vector<double>(std::size_t(columns));
  double rms_of_update = 0;  // of the last step, before clipping

  void step(const std::vector<double>& g, const AdafactorStep& s, double decay) {
    const auto at = [this](std::int64_t r, std::int64_t c) { return std::size_t(r * columns + c); };
    std::vector<double> row(std::size_t(rows), 0.0), column(std::size_t(columns), 0.0);
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < columns; ++c) {
        const double square = g[at(r, c)] * g[at(r, c)] + double(s.eps);
        row[std::size_t(r)] += square / double(columns);
        column[std::size_t(c)] += square / double(rows);
      }
    double mean = 0;
    for (std::size_t r = 0; r < row.size(); ++r) {
      of_row[r] = double(s.beta2) * of_row[r] + (1 - double(s.beta2)) * row[r];
      mean += of_row[r] / double(rows);
    }
    for (std::size_t c = 0; c < column.size(); ++c)
      of_column[c] = double(s.beta2) * of_column[c] + (1 - double(s.beta2)) * column[c];

    std::vector<double> u(p.size());
    double squares_of_u = 0, squares_of_p = 0;
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < columns; ++c) {
        const double v =
            is_vector ? of_column[std::size_t(c)] : of_row[std::size_t(r)] * of_column[std::size_t(c)] / mean;
        u[at(r, c)] = g[at(r, c)] / std::sqrt(v);
        squares_of_u += u[at(r, c)] * u[at(r, c)];
        squares_of_p += p[at(r, c)] * p[at(r, c)];
      }
    rms_of_update = std::sqrt(squares_of_u / double(p.size()));
    const double clip = s.clip > 0 ? std::max(1.0, rms_of_update / double(s.clip)) : 1,
                 scale = s.scale_floor > 0 ? std::max(double(s.scale_floor), std::sqrt(squares_of_p / double(p.size())))
                                           : 1;
    for (std::size_t i = 0; i < p.size(); ++i) {
      m[i] = double(s.beta1) * m[i] + (1 - double(s.beta1)) * double(s.lr) * scale * u[i] / clip;
      p[i] -= m[i] + double(s.lr) * decay * p[i];
    }
  }
};

}  // namespace switchyard::test
