#include "optim/adafactor.h"

#include <algorithm>
#include <cmath>

#include "autograd/scope.h"

namespace switchyard {
namespace {

constexpr double kDecayExponent = 0.8;  // Shazeer and Stern, section 7.2

// Both numbers of a state's place in a tensor with or without a leading axis.
Shape with_leading(const Shape& tensor, std::int64_t matrices, std::int64_t extent) {
  return tensor.rank() == 3 ? Shape{matrices, extent} : Shape{extent};
}

}  // namespace

Adafactor::Adafactor(Shards& shards, Mesh& mesh, const OptimConfig& config)
    : whole_(shards.whole()), mesh_(mesh), masters_(shards.kept()), config_(config), index_(shards.whole()) {
  check_masters(shards.masters(), "Adafactor");
  const Device device = whole_.empty() ? Device{} : whole_[0].variable.device();
  v_ = Tensor::zeros({index_.numbers()}, DType::f32, device, Memory::optimizer);
  factors_ = Tensor::empty({index_.numbers()}, DType::f32, device, Memory::optimizer);
  squares_ = Tensor::empty({index_.matrices(), 2}, DType::f32, device, Memory::optimizer);
  for (const Parameter& p : shards.masters())
    held_.push_back(
        {.parameter = p,
         .matrices = index_.of(p),
         .blocks = index_.blocks(p),
         .m = config.beta1 > 0 ? Tensor::zeros(p.variable.shape(), DType::f32, device, Memory::optimizer) : Tensor()});
}

void Adafactor::update(double lr, const Tensor& grad_scale_1) {
  const Scope scope("adafactor");
  const double beta2 = std::min(config_.beta2, 1 - std::pow(static_cast<double>(steps()), -kDecayExponent));
  const AdafactorStep step{.lr = static_cast<float>(lr),
                           .beta1 = static_cast<float>(config_.beta1),
                           .beta2 = static_cast<float>(beta2),
                           .eps = static_cast<float>(config_.eps),
                           .clip = static_cast<float>(config_.update_clip),
                           .scale_floor = static_cast<float>(config_.scale_floor)};
  std::vector<AdafactorTensors> tensors;
  for (Master& master : held_) {
    Variable& p = master.parameter.variable;
    const bool decays = master.parameter.decay == Decay::yes;
    tensors.push_back({.param = p.value(),
                       .m = master.m,
                       .grad = gradient_or_zeros(p),
                       .weight = p.compute_copy(),
                       .weight_decay = decays ? static_cast<float>(config_.weight_decay) : 0,
                       .matrices = master.matrices,
                       .blocks = master.blocks});
  }
  const Kernels& k = kernels(grad_scale_1.device());
  k.square_means(factors_, tensors, grad_scale_1);
  index_.sum_numbers(factors_, mesh_, masters_);
  k.moment_factors(v_, factors_, index_.all(), step, grad_scale_1);
  k.update_squares(squares_, tensors, factors_, grad_scale_1);
  index_.sum_matrices(squares_, mesh_, masters_);
  k.adafactor(tensors, step, factors_, squares_, grad_scale_1);
}

std::vector<OptimizerState> Adafactor::states() const {
  std::vector<OptimizerState> states;
  for (std::size_t i = 0; i < whole_.size(); ++i) {
    const Parameter& p = whole_[i];
    const Matrices& m = index_.all()[i];
    const auto add = [&](const char* name, std::int64_t begin, std::int64_t extent) {
      const Shape here = with_leading(p.global_shape, m.count, extent);
      Origin origin{};
      if (here.rank() == 2) origin[0] = index_.first_held(i);
      states.push_back({.name = text("optimizer.", name, ".", p.name),
                        .value = v_.rows(begin, begin + m.count * extent),
                        .global_shape = with_leading(p.global_shape, p.global_shape[0], extent),
                        .boxes = {{origin, here}},
                        .replicas = p.replicas,
                        .is_cut = false});
    };
    if (m.row >= 0) add("exp_avg_sq_row", m.row, m.rows);
    add(m.row >= 0 ? "exp_avg_sq_col" : "exp_avg_sq", m.column, m.columns);
  }
  for (const Master& master : held_)
    if (master.m) states.push_back(state_like(master.parameter, "exp_avg", master.m));
  return states;
}

}  // namespace switchyard
