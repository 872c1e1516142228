#include "model/stages.h"

#include <algorithm>
#include <numeric>

#include "model/count.h"
#include "model/placement.h"

namespace switchyard {
namespace {

// Stages filled from the last on, each with as many blocks as cost at most `most`, leaving one for each stage before.
// The first stage takes what is left.
std::vector<Stage> fill(const std::vector<double>& cost, std::size_t stages, double most) {
  std::vector<Stage> cut(stages);
  std::size_t end = cost.size();
  for (std::size_t s = stages; s-- > 0;) {
    std::size_t begin = end - 1;
    double sum = cost[begin];
    while (begin > s && (s == 0 || sum + cost[begin - 1] <= most)) sum += cost[--begin];
    cut[s] = {static_cast<std::int64_t>(begin), static_cast<std::int64_t>(end)};
    end = begin;
  }
  return cut;
}

double slowest(const std::vector<double>& cost, const std::vector<Stage>& cut) {
  double most = 0;
  for (const Stage& stage : cut)
    most = std::max(most, std::accumulate(cost.begin() + stage.begin, cost.begin() + stage.end, 0.0));
  return most;
}

}  // namespace

std::vector<Stage> cut_into_stages(const ModelConfig& model, const MoeConfig& moe, std::int64_t seq_len, int stages) {
  SY_CHECK(1 <= stages && stages <= model.n_layers, model.n_layers, " blocks for ", stages, " stages");
  std::vector<double> cost;
  for (const bool is_moe : moe_blocks(moe, model.n_layers))
    cost.push_back(count_block(model, moe, is_moe, seq_len).flops_per_token);
  cost.back() += 6.0 * static_cast<double>(model.vocab_size * model.d_model);

  // The least bound that all stages can keep, by halving; costs are whole numbers below 2^53.
  const auto n = static_cast<std::size_t>(stages);
  double low = 0, high = std::accumulate(cost.begin(), cost.end(), 0.0);
  while (high - low > 0.5)
    if (const double middle = (low + high) / 2; slowest(cost, fill(cost, n, middle)) <= middle)
      high = middle;
    else
      low = middle;
  return fill(cost, n, high);
}

}  // namespace switchyard
