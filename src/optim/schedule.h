#pragma once

#include <cstdint>

#include "optim/config.h"

namespace switchyard {

// The learning rate of update `step`, counted from 0, of a run of `total_steps`. With n = step + 1 updates done then,
// W warm-up steps, r = min_ratio and D decay steps:
//   n <= W         lr n / W, whatever the kind
//   constant       lr
//   linear         lr (1 - (1 - r) x)                      x = (n - W) / D, at most 1; D = 0 means total_steps - W
//   cosine         lr (r + (1 - r) (1 + cos(pi x)) / 2)    likewise
//   inverse_sqrt   lr max(r, sqrt(H / max(n, H)))          H = max(W, hold_steps, 1): without a hold that of Vaswani et
//                                                          al., arXiv 1706.03762, section 5.3; with one and W = 0, T5's
//                                                          and GLaM's: lr for H steps, then as 1 / sqrt(n)
//   wsd            lr until the last D steps, then linear to lr r; D = 0 means a tenth of the run
//                  (warm-up, stable, decay: Hu et al., arXiv 2404.06395)
// Continuous at every boundary and never negative; after the decay it stays at lr r, which the last update of the run
// has where D = 0. A warm-up longer than the run ends where the run ends.
double learning_rate(const OptimConfig& config, std::int64_t step, std::int64_t total_steps);

}  // namespace switchyard
