#include "train/layout_check.h"

#include <algorithm>
#include <cmath>

#include "train/config_rules.h"
#include "train/layout_search.h"
#include "train/learner.h"

namespace switchyard {
namespace {

// The configuration in f32 on so many ranks, its batch in so many parts.
Config laid_out(Config config, const ParallelConfig& parallel, int ranks, std::int64_t micro_batches) {
  config.run.precision = Precision::fp32;
  config.parallel = parallel;
  const int data = ranks / (parallel.pipeline * parallel.tensor);
  SY_REQUIRE(config.train.global_batch % (data * micro_batches) == 0, Fault::usage, config.train.global_batch,
             " samples do not divide over ", data, " data ranks in ", micro_batches, " parts");
  config.train.micro_batch = config.train.global_batch / data / micro_batches;
  const std::vector<Violation> broken = violations(config);
  SY_REQUIRE(broken.empty(), Fault::usage, broken.front().keys.front(), ": ", broken.front().what);
  check_layout(config, ranks);
  return resolved(config, ranks);
}

bool is_legal(const Config& config, const ParallelConfig& parallel, int ranks, std::int64_t micro_batches) {
  try {
    laid_out(config, parallel, ranks, micro_batches);
    return true;
  } catch (const Error& error) {
    if (error.fault() != Fault::usage) throw;
    return false;
  }
}

Tensor host_copy(const Tensor& x) {
  Tensor y = Tensor::empty(x.shape(), x.dtype(), Device{});
  kernels(x.device()).copy(y, x);
  return y;
}

// Sums of squares over all elements that this rank holds of a parameter.
struct Squares {
  double difference = 0, whole = 0;

  void operator+=(const Squares& other) {
    difference += other.difference;
    whole += other.whole;
  }
};
// Of slice - whole[boxes] and of whole[boxes] - base[boxes], the base being zeros where it is empty.
Squares squares(const Tensor& slice, const std::vector<Box>& boxes, const Tensor& whole, const Tensor& base) {
  const float *x = slice.data<float>(), *all = whole.data<float>(), *zero = base ? base.data<float>() : nullptr;
  Squares sum;
  for (const Box& box : boxes)
    for_each_index(box, whole.shape(), [&](std::int64_t i) {
      sum.difference += std::pow(double{*x++} - all[i], 2);
      sum.whole += std::pow(double{all[i]} - (zero ? zero[i] : 0), 2);
    });
  return sum;
}

struct Worst {
  double ratio = 0;
  std::string name{};
};
// The largest ratio of norms over the parameters. A parameter of which almost nothing is to be seen, beside the others,
// is measured against a millionth of all. Each rank brings the parameters that it has, all or parts of them.
Worst worst_ratio(const std::map<std::string, Squares>& mine, const LayoutReference& reference, ProcessGroup& world) {
  std::vector<float> flat;
  for (const auto& [name, values] : reference.parameters) {
    const auto found = mine.find(name);
    const Squares s = found == mine.end() ? Squares{} : found->second;
    flat.insert(flat.end(), {static_cast<float>(s.difference), static_cast<float>(s.whole)});
  }
  Tensor sums = Tensor::of(std::span<const float>(flat), {std::ssize(flat)}, Device{});
  world.all_reduce(sums, Reduce::sum);  // every slice is held equally often, which leaves the ratios as they are
  double all = 0;
  for (std::size_t p = 0; p < reference.parameters.size(); ++p) all += sums.data<float>()[2 * p + 1];
  Worst worst;
  const float* s = sums.data<float>();
  for (const auto& [name, values] : reference.parameters) {
    const double ratio = std::sqrt(s[0] / std::max<double>(s[1], 1e-12 * all));
    if (ratio > worst.ratio || worst.name.empty()) worst = {ratio, name};
    s += 2;
  }
  return worst;
}

double relative(double a, double b) { return std::abs(a - b) / std::max(std::abs(b), 1e-3); }

double loss_difference(const StepMetrics& a, const StepMetrics& b) {
  return std::max({relative(a.loss, b.loss), relative(a.balance_loss, b.balance_loss), relative(a.z_loss, b.z_loss),
                   relative(a.grad_norm, b.grad_norm)});
}

// Shares are quotients of small integers, summed over ranks in f32: equal counts agree to far below one choice.
double routing_difference(const StepMetrics& a, const StepMetrics& b) {
  double largest = std::abs(a.drop_fraction - b.drop_fraction);
  for (std::size_t block = 0; block < b.expert_load.size(); ++block)
    for (std::size_t e = 0; e < b.expert_load[block].size(); ++e)
      largest = std::max(largest, std::abs(a.expert_load[block][e] - b.expert_load[block][e]));
  return largest < 1e-7 ? 0 : largest;
}

}  // namespace

std::vector<ParallelConfig> legal_layouts(const Config& config, int ranks, std::int64_t micro_batches) {
  std::vector<ParallelConfig> layouts = layouts_of(config, ranks);
  std::erase_if(layouts, [&](const ParallelConfig& p) { return !is_legal(config, p, ranks, micro_batches); });
  return layouts;
}

LayoutReference train_alone(const Config& config, int steps, std::int64_t micro_batches) {
  const auto self = make_self_group();
  Learner learner(laid_out(config, {}, 1, micro_batches), *self);
  LayoutReference reference;
  for (const Parameter& p : learner.model().parameters())
    reference.parameters[p.name].before = host_copy(p.variable.value());
  for (int step = 0; step < steps; ++step) {
    const StepSums sums = learner.backward(step);
    if (step == 0)
      for (const Parameter& p : learner.model().parameters())
        reference.parameters[p.name].gradient = host_copy(p.variable.grad());
    reference.steps.push_back(learner.update(step, sums));
  }
  for (const Parameter& p : learner.model().parameters())
    reference.parameters[p.name].after = host_copy(p.variable.value());
  return reference;
}

LayoutDifference compare_layout(const Config& config, const ParallelConfig& parallel, std::int64_t micro_batches,
                                const LayoutReference& reference, ProcessGroup& world) {
  Learner learner(laid_out(config, parallel, world.size(), micro_batches), world);
  const auto compare = [&](const auto& squares_of) {
    std::map<std::string, Squares> sums;
    for (const Parameter& p : learner.masters()) sums[p.name] += squares_of(p, reference.parameters.at(p.name));
    return worst_ratio(sums, reference, world);
  };
  LayoutDifference difference;
  for (std::size_t step = 0; step < reference.steps.size(); ++step) {
    const StepSums sums = learner.backward(static_cast<std::int64_t>(step));
    if (step == 0) {
      const Worst worst = compare([](const Parameter& p, const LayoutReference::Values& whole) {
        return squares(to_device(p.variable.grad(), Device{}), p.boxes, whole.gradient, {});
      });
      difference.gradient = worst.ratio;
      difference.worst = worst.name;
    }
    const StepMetrics metrics = learner.update(static_cast<std::int64_t>(step), sums);
    difference.loss = std::max(difference.loss, loss_difference(metrics, reference.steps[step]));
    difference.routing = std::max(difference.routing, routing_difference(metrics, reference.steps[step]));
  }
  const Worst worst = compare([](const Parameter& p, const LayoutReference::Values& whole) {
    return squares(to_device(p.variable.value(), Device{}), p.boxes, whole.after, whole.before);
  });
  difference.parameters = worst.ratio;
  return difference;
}

}  // namespace switchyard
