#include "train/metrics.h"

#include <nlohmann/json.hpp>

namespace switchyard {
namespace {

float scalar(const Tensor& x) { return *to_device(x, Device{}).data<float>(); }

}  // namespace

std::string to_json(const StepMetrics& m) {
  nlohmann::ordered_json json{{"step", m.step},
                              {"tokens", m.tokens},
                              {"loss", m.loss},
                              {"balance_loss", m.balance_loss},
                              {"z_loss", m.z_loss},
                              {"lr", m.lr},
                              {"grad_norm", m.grad_norm},
                              {"tokens_per_second", m.tokens_per_second},
                              {"drop_fraction", m.drop_fraction},
                              {"router_entropy", m.router_entropy},
                              {"expert_load", m.expert_load}};
  if (m.val_loss) json["val_loss"] = *m.val_loss;
  return json.dump();
}

void StepSums::add(const ModelResult& result) {
  loss_ += scalar(result.lm_loss_1);
  layers_.resize(result.stats.size());
  for (std::size_t i = 0; i < result.stats.size(); ++i) {
    const RoutingStats& stats = result.stats[i];
    Layer& layer = layers_[i];
    layer.balance += scalar(stats.balance_1);
    layer.z += scalar(stats.z_1);
    layer.entropy += scalar(stats.entropy_1);
    layer.tokens += stats.tokens;
    layer.choices += stats.choices;
    const Tensor kept_E = to_device(stats.kept_E, Device{});
    layer.kept.resize(static_cast<std::size_t>(kept_E.numel()));
    for (std::size_t e = 0; e < layer.kept.size(); ++e) layer.kept[e] += kept_E.data<std::int32_t>()[e];
  }
}

void StepSums::reduce_into(StepMetrics& m, ProcessGroup& data) const {
  std::vector<float> sums{static_cast<float>(loss_)};
  for (const Layer& layer : layers_) {
    sums.insert(sums.end(),
                {static_cast<float>(layer.balance), static_cast<float>(layer.z), static_cast<float>(layer.entropy),
                 static_cast<float>(layer.tokens), static_cast<float>(layer.choices)});
    for (const std::int64_t kept : layer.kept) sums.push_back(static_cast<float>(kept));
  }
  Tensor all = Tensor::of(std::span<const float>(sums), {std::int64_t(sums.size())}, Device{});
  data.all_reduce(all, Reduce::sum);

  const float* next = all.data<float>();
  m.loss = *next++;
  const double blocks = static_cast<double>(layers_.size());
  double choices = 0, kept = 0;
  m.expert_load.clear();
  for (const Layer& layer : layers_) {
    const double balance = *next++, z = *next++, entropy = *next++, tokens = *next++, layer_choices = *next++;
    m.balance_loss += balance / blocks;
    m.z_loss += z / blocks;
    choices += layer_choices;
    m.router_entropy += entropy / tokens / blocks;
    std::vector<double> load;
    for (std::size_t e = 0; e < layer.kept.size(); ++e) {
      kept += *next;
      load.push_back(*next++ / layer_choices);
    }
    m.expert_load.push_back(std::move(load));
  }
  m.drop_fraction = choices > 0 ? 1 - kept / choices : 0;
}

MetricsLog::MetricsLog(std::filesystem::path path, std::int64_t resumed_step) : path_(std::move(path)) {
  std::string kept;
  std::ifstream before(path_);
  for (std::string line; std::getline(before, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (json.is_object() && json.value("step", resumed_step + 1) <= resumed_step) kept += line + "\n";
  }
  before.close();
  const std::filesystem::path fresh = path_.string() + ".new";
  std::ofstream out(fresh, std::ios::binary);
  out << kept << std::flush;
  SY_REQUIRE(out, Fault::data, "cannot write ", fresh.string(), "; is the disk full?");
  std::filesystem::rename(fresh, path_);
  out_.open(path_, std::ios::app | std::ios::binary);
  SY_REQUIRE(out_, Fault::data, "cannot write ", path_.string());
}

void MetricsLog::write(const StepMetrics& metrics) {
  out_ << to_json(metrics) << std::endl;
  SY_REQUIRE(out_, Fault::data, "cannot write ", path_.string(), "; is the disk full?");
}

}  // namespace switchyard
