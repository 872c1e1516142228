#include "train/metrics.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "train/host_values.h"

namespace switchyard {
namespace {

// One MoE block, summed over the micro-batches.
struct BlockSums {
  double balance = 0, z = 0, entropy = 0, choices = 0;
  std::int64_t tokens = 0;
  std::vector<std::int64_t> kept;
};

using Json = nlohmann::ordered_json;

Json json_of(const LayerHealth& layer) {
  Json json{{"layer", layer.layer}, {"load", layer.health.load}, {"dropped", layer.health.dropped}};
  for (const Reading& reading : readings())
    if (const double value = layer.health.*reading.value; !std::isnan(value)) json[reading.name] = value;
  return json;
}

Json json_of(const Alarm& alarm) {
  return {{"layer", alarm.layer}, {"watch", alarm.watch},       {"value", alarm.value},
          {"limit", alarm.limit}, {"readings", alarm.readings}, {"action", name_of(alarm.action)}};
}

}  // namespace

std::string to_json(const LayerHealth& layer) { return json_of(layer).dump(); }

std::string to_json(const StepMetrics& m) {
  Json json{{"step", m.step},
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
  for (const LayerHealth& layer : m.router) json["router"].push_back(json_of(layer));
  for (const Alarm& alarm : m.alarms) json["alarms"].push_back(json_of(alarm));
  return json.dump();
}

void StepSums::add(const ModelResult& result) {
  losses_.push_back(result.lm_loss_1);
  stats_.push_back(result.stats);
}

void StepSums::reduce_into(StepMetrics& m, ProcessGroup& world) const {
  std::vector<Tensor> floats = losses_, counts;
  for (const auto& blocks : stats_)
    for (const RoutingStats& block : blocks) {
      floats.insert(floats.end(), {block.balance_1, block.z_1, block.entropy_1});
      if (block.chosen_E) floats.push_back(block.chosen_E);
      counts.push_back(block.kept_PE);
    }
  const std::vector<float> told = host_values<float>(floats);
  const std::vector<std::int32_t> kept_rows = host_values<std::int32_t>(counts);

  const double loss = std::accumulate(told.begin(), told.begin() + std::ptrdiff_t(losses_.size()), 0.0);
  std::vector<BlockSums> layers(stats_.empty() ? 0 : stats_[0].size());
  const float* next_told = told.data() + losses_.size();
  const std::int32_t* next_kept = kept_rows.data();
  for (const auto& blocks : stats_)
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      BlockSums& layer = layers[i];
      layer.balance += *next_told++;
      layer.z += *next_told++;
      layer.entropy += *next_told++;
      layer.tokens += blocks[i].tokens;
      if (const Tensor& chosen_E = blocks[i].chosen_E)
        for (std::int64_t e = 0; e < chosen_E.numel(); ++e) layer.choices += *next_told++;
      else
        layer.choices += static_cast<double>(blocks[i].choices);
      const auto experts = static_cast<std::size_t>(blocks[i].kept_PE.dim(1));
      layer.kept.resize(experts);
      for (std::size_t n = 0; n < experts * static_cast<std::size_t>(blocks[i].kept_PE.dim(0)); ++n)
        layer.kept[n % experts] += *next_kept++;
    }

  std::vector<float> sums{static_cast<float>(loss)};
  for (const BlockSums& layer : layers) {
    sums.insert(sums.end(),
                {static_cast<float>(layer.balance), static_cast<float>(layer.z), static_cast<float>(layer.entropy),
                 static_cast<float>(layer.tokens), static_cast<float>(layer.choices)});
    for (const std::int64_t kept : layer.kept) sums.push_back(static_cast<float>(kept));
  }
  Tensor all = Tensor::of(std::span<const float>(sums), {std::int64_t(sums.size())}, Device{});
  world.all_reduce(all, Reduce::sum);

  const float* next = all.data<float>();
  m.loss = *next++;
  const double blocks = static_cast<double>(layers.size());
  double choices = 0, kept = 0;
  m.expert_load.clear();
  for (const BlockSums& layer : layers) {
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
  std::error_code failure;
  std::filesystem::rename(fresh, path_, failure);
  SY_REQUIRE(!failure, Fault::data, "cannot write ", path_.string(), ": ", failure.message());
  out_.open(path_, std::ios::app | std::ios::binary);
  SY_REQUIRE(out_, Fault::data, "cannot write ", path_.string());
}

void MetricsLog::write(const StepMetrics& metrics) {
  out_ << to_json(metrics) << std::endl;
  SY_REQUIRE(out_, Fault::data, "cannot write ", path_.string(), "; is the disk full?");
}

}  // namespace switchyard
