#pragma once

#include <map>
#include <string>
#include <vector>

#include "dist/process_group.h"
#include "train/config.h"
#include "train/metrics.h"

namespace switchyard {

// Every layout of exactly so many ranks that the configuration allows, whatever its own `parallel` says, the samples of
// a step going through the model in `micro_batches` parts; of several ranks each without and with a shared-out
// optimizer.
std::vector<ParallelConfig> legal_layouts(const Config& config, int ranks, std::int64_t micro_batches);

// What one rank alone gets from some steps: what every layout should get. Tensors whole, by parameter.
struct LayoutReference {
  struct Values {
    Tensor before, gradient, after;  // of the first step; the parameter before it and after the last
  };
  std::vector<StepMetrics> steps;
  std::map<std::string, Values> parameters;
};
LayoutReference train_alone(const Config& config, int steps, std::int64_t micro_batches);

// How far a layout is from that, relative, the largest over steps and parameters. Norms are Euclidean.
struct LayoutDifference {
  double loss = 0;        // of the losses and of the gradient's norm
  double gradient = 0;    // |g - g'| / |g| of a parameter, after the first step
  double parameters = 0;  // |p - p'| / |what the steps changed of p|, after the last
  double routing = 0;     // of the share of choices that an expert took, absolute
  std::string worst{};    // the parameter whose gradient is farthest

  // f32 rounding: sums of the layouts' own orders, 1e-6 of a gradient, now and then near a tie of two experts or among
  // terms that cancel; AdamW divides by the root of second moments, which turns the rounding of the smallest gradients
  // into changes as large as any, but of few elements.
  bool is_rounding() const { return loss < 2e-5 && gradient < 2e-4 && parameters < 2e-2 && routing == 0; }
};
// Every rank of the world calls.
LayoutDifference compare_layout(const Config& config, const ParallelConfig& parallel, std::int64_t micro_batches,
                                const LayoutReference& reference, ProcessGroup& world);

}  // namespace switchyard
