#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace switchyard::cpu {

// The sum of part(begin, end) over blocks of [0, n): threads share the blocks, whose sums are added in their order, so
// that the bits depend on n and the block and not on the number of threads.
template <class Part>
double block_sum(std::int64_t n, std::int64_t block, Part part) {
  std::vector<double> sums(static_cast<std::size_t>((n + block - 1) / block));
#pragma omp parallel for schedule(static) if (sums.size() > 1)
  for (std::size_t b = 0; b < sums.size(); ++b) {
    const std::int64_t begin = static_cast<std::int64_t>(b) * block;
    sums[b] = part(begin, std::min(begin + block, n));
  }
  double total = 0;
  for (double sum : sums) total += sum;
  return total;
}

// sum of term(i) for i in [begin, end), in double: four sums at a time, because one would wait for every addition.
template <class Term>
double double_sum(std::int64_t begin, std::int64_t end, Term term) {
  const std::int64_t quarter = (end - begin) / 4;
  double a = 0, b = 0, c = 0, d = 0;
#pragma omp simd reduction(+ : a, b, c, d)
  for (std::int64_t i = begin; i < begin + quarter; ++i) {
    a += term(i);
    b += term(quarter + i);
    c += term(2 * quarter + i);
    d += term(3 * quarter + i);
  }
  for (std::int64_t i = begin + 4 * quarter; i < end; ++i) a += term(i);
  return (a + b) + (c + d);
}

}  // namespace switchyard::cpu
