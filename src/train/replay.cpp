#include "train/replay.h"

#include <sstream>

#include "train/config_reader.h"
#include "train/config_rules.h"
#include "train/config_writer.h"

namespace switchyard {
namespace {

constexpr const char* kSection = "router.";

// The kind that the changes name, or none.
std::optional<RouterKind> kind_in(const std::vector<std::string>& overrides) {
  std::vector<std::string> kinds;
  for (const std::string& override : overrides)
    if (override.starts_with("router.kind=")) kinds.push_back(override);
  if (kinds.empty()) return std::nullopt;
  Config named;
  const Section table = describe(named);
  read_fields(table, "run: {}", "", kinds, [] { return std::vector<Violation>{}; });
  return named.moe.router.kind;
}

std::vector<RoutingStats> route_block(const Record& record, const RecordedBlock& block, const Config& config,
                                      Mesh& mesh) {
  ParameterMaker make(config.run.seed, Device{});
  const Router router(config.moe, 1, text("model.layers.", block.block, ".mlp"), mesh, make);
  if (Tensor bias_E = router.bias()) kernels(Device{}).copy(bias_E, block.bias_E);
  const bool is_hashed = config.moe.router.scores == Scoring::hash;
  const std::int64_t tokens = record.token_T.numel() / record.steps;
  std::vector<RoutingStats> steps;
  for (std::int64_t i = 0; i < record.steps; ++i) {
    const Variable logits_TE(block.logits_TE.rows(i * tokens, (i + 1) * tokens));
    const RouterPass pass{.share = 1.0f / static_cast<float>(tokens * record.steps),
                          .step = record.state.step + i,
                          .balance_scale = static_cast<float>(record.state.balance_scale),
                          .observe = true,
                          .token_T = record.token_T.rows(i * tokens, (i + 1) * tokens)};
    steps.push_back(router.route(is_hashed ? Scores{} : score(logits_TE, config.moe.router.scores), pass).stats);
  }
  return steps;
}

}  // namespace

Policy policy_of(const Record& record, const std::string& changes) {
  std::vector<std::string> overrides;
  std::istringstream words(changes);
  for (std::string word; words >> word;) overrides.push_back(word.starts_with(kSection) ? word : kSection + word);

  Config config = record.config;
  if (const std::optional<RouterKind> kind = kind_in(overrides))
    config.moe.router = router_preset(*kind);
  else
    config.moe.router.kind = RouterKind::top_k;  // which leaves every key free
  config.moe.router.allow_future_tokens = true;  // nothing is generated here,
  config.health.alarms.clear();                  // and nothing watched
  config = resolved(read_config(write_config(config), "the recorded configuration", overrides));
  SY_REQUIRE(!config.moe.router.bias || record.config.moe.router.bias, Fault::usage,
             "router.bias: the recorded router has none, and what training would have made of it is not known");
  return {overrides.empty() ? "as recorded" : changes, config};
}

std::vector<LayerHealth> replay(const Record& record, const Policy& policy, ProcessGroup& world) {
  SY_CHECK(world.size() == 1, "replay: wanted one rank, came ", world.size());
  NoGrad guard;
  Mesh mesh({}, world);
  std::vector<std::vector<RoutingStats>> stats(static_cast<std::size_t>(record.steps));  // by step and block
  for (const RecordedBlock& block : record.blocks) {
    std::vector<RoutingStats> steps = route_block(record, block, policy.config, mesh);
    for (std::size_t i = 0; i < steps.size(); ++i) stats[i].push_back(std::move(steps[i]));
  }
  return read_health(stats, health_scope(policy.config), world);
}

}  // namespace switchyard
