#include "train/routed_text.h"

#include <algorithm>
#include <set>

#include "data/eval_loader.h"
#include "model/placement.h"
#include "train/decide.h"

namespace switchyard {
namespace {

constexpr std::int64_t kChunk = 8;  // sequences of a pass

void require_choices(const MoeConfig& moe) {
  SY_REQUIRE(moe.experts > 0, Fault::usage, "the model has no experts, so there is nothing to analyse");
  SY_REQUIRE(moe.router.choice == Choosing::experts || moe.router.top_k < moe.experts, Fault::usage,
             "every token goes to all ", moe.experts, " experts (router.top_k = ", moe.router.top_k,
             "), so which it goes to says nothing about it");
}

void require_domains(const std::vector<DomainSource>& sources) {
  SY_REQUIRE(!sources.empty(), Fault::usage, "no text to route: data.valid is empty; give --data NAME=PREFIX");
  std::set<std::string> names;
  for (const DomainSource& source : sources)
    SY_REQUIRE(names.insert(source.domain).second, Fault::usage, "two sources are called ", source.domain,
               "; give them names: --data NAME=PREFIX");
}

// Only what an expert takes is a choice: where experts choose they leave tokens out.
void add_token(RoutedBlock& block, const Decisions& decided, std::int64_t token) {
  const std::int64_t choices = decided.expert_TK.dim(1);
  block.choices = choices;
  for (std::int64_t i = token * choices; i < (token + 1) * choices; ++i)
    block.expert_TK.push_back(decided.slot_TK.data<std::int32_t>()[i] >= 0 ? decided.expert_TK.data<std::int32_t>()[i]
                                                                           : -1);
}

}  // namespace

RoutedText route_text(Restored& trained, const std::vector<DomainSource>& sources, std::int64_t tokens_each) {
  const Config& config = trained.config;
  SY_CHECK(trained.mesh->world->size() == 1, "route_text: wanted one rank, came ", trained.mesh->world->size());
  require_choices(config.moe);
  require_domains(sources);

  RoutedText routed{.experts = config.moe.experts};
  const std::vector<bool> is_moe = moe_blocks(config.moe, config.model.n_layers);
  for (std::size_t i = 0; i < is_moe.size(); ++i)
    if (is_moe[i]) routed.blocks.push_back({.block = static_cast<std::int64_t>(i)});

  const std::int64_t seq = config.train.seq_len, windows = (tokens_each + seq - 1) / seq;
  Pipeline model(*trained.model, *trained.mesh);
  for (const auto& [domain, path] : sources) {
    const DataSource source{.path = path};
    const EvalLoader data(std::span(&source, 1), seq, config.model.vocab_size, windows);
    for (std::int64_t first = 0; first < data.samples(); first += kChunk) {
      const std::int64_t count = std::min(kChunk, data.samples() - first);
      const Batch batch = data.batch(first, count);
      const auto decided = decide(
          model,
          {batch.tokens_T, batch.targets_T, {.batch = count, .seq = seq, .share = 1, .capacity = Capacity::unlimited}});
      for (std::int64_t t = 0; t < count * seq; ++t) {
        if (batch.targets_T.data<std::int32_t>()[t] < 0) continue;  // a window's empty end
        routed.token_T.push_back(batch.tokens_T.data<std::int32_t>()[t]);
        routed.domain_T.push_back(static_cast<std::int32_t>(routed.domains.size()));
        for (std::size_t b = 0; b < decided.size(); ++b) add_token(routed.blocks[b], decided[b], t);
      }
    }
    routed.domains.push_back(domain);
  }
  return routed;
}

}  // namespace switchyard
