#include "train/record.h"

#include <algorithm>
#include <numeric>

#include "data/loader.h"
#include "model/placement.h"
#include "train/config_reader.h"
#include "train/config_rules.h"
#include "train/config_writer.h"
#include "train/decide.h"

namespace switchyard {
namespace {

constexpr const char *kTokens = "tokens", *kLogits = ".mlp.logits", *kBias = ".mlp.gate.e_score_correction_bias";

std::string block_name(std::int64_t block) { return text("model.layers.", block); }

std::vector<std::int64_t> blocks_of(const Config& config) {
  std::vector<std::int64_t> blocks;
  const std::vector<bool> is_moe = moe_blocks(config.moe, config.model.n_layers);
  for (std::size_t i = 0; i < is_moe.size(); ++i)
    if (is_moe[i]) blocks.push_back(static_cast<std::int64_t>(i));
  return blocks;
}

void require_logits(const Config& config, int ranks) {
  SY_REQUIRE(config.moe.experts > 0, Fault::usage, "the model has no experts, so there is no routing to record");
  SY_REQUIRE(config.moe.router.scores != Scoring::hash, Fault::usage,
             "tokens are hashed (router.scores = hash): there are no logits to record");
  SY_REQUIRE(!config.data.train.empty(), Fault::usage, "data.train is empty; give --data PREFIX");
  SY_REQUIRE(config.train.global_batch % ranks == 0, Fault::usage, ranks,
             " ranks do not divide train.global_batch = ", config.train.global_batch);
}

// One pass of this rank: rows from `first` on of all that is recorded.
struct Piece {
  std::int64_t first;
  Tensor token_T;
  std::vector<Decisions> blocks;
};

}  // namespace

void record_routing(Restored& trained, std::int64_t steps, const std::filesystem::path& dir, ProcessGroup& world) {
  const Config& config = trained.config;
  const TrainConfig& train = config.train;
  require_logits(config, world.size());
  SY_REQUIRE(!std::filesystem::exists(dir), Fault::usage, dir.string(), " is there already; choose another --out");
  world.barrier();

  const Loader loader(config.data.train, {.seq_len = train.seq_len,
                                          .global_batch = train.global_batch,
                                          .vocab_size = config.model.vocab_size,
                                          .seed = config.run.seed});
  const std::int64_t own = train.global_batch / world.size(),
                     samples = std::gcd(own, std::max<std::int64_t>(train.micro_batch, 1));
  const std::int64_t step_tokens = train.global_batch * train.seq_len;
  Pipeline model(*trained.model, *trained.mesh);
  std::vector<Piece> pieces;
  for (std::int64_t i = 0; i < steps; ++i)
    for (std::int64_t s = own * world.rank(); s < own * (world.rank() + 1); s += samples) {
      const std::int64_t step = trained.state.step + i;
      const Batch batch = loader.batch(step, s, samples);
      pieces.push_back({i * step_tokens + s * train.seq_len, batch.tokens_T,
                        decide(model, {batch.tokens_T,
                                       batch.targets_T,
                                       {.batch = samples,
                                        .seq = train.seq_len,
                                        .share = 1.0f / static_cast<float>(step_tokens),
                                        .step = step,
                                        .first_token = s * train.seq_len}})});
    }

  std::vector<LogicalTensor> tensors;
  const std::vector<std::int64_t> blocks = blocks_of(config);
  const std::int64_t tokens = steps * step_tokens;
  for (const Piece& piece : pieces) {
    tensors.push_back({.name = kTokens, .local = piece.token_T, .global_shape = {tokens}, .origin = {piece.first}});
    for (std::size_t b = 0; b < blocks.size(); ++b)
      tensors.push_back({.name = block_name(blocks[b]) + kLogits,
                         .local = piece.blocks[b].logits_TE,
                         .global_shape = {tokens, config.moe.experts},
                         .origin = {piece.first}});
  }
  for (const auto& [name, value] : trained.model->states())
    tensors.push_back({.name = name, .local = value, .global_shape = value.shape(), .writer = world.rank() == 0});
  TrainingState state = trained.state;
  state.configuration = write_config(config);
  save_checkpoint(dir, tensors, state, world, 1);
}

Record load_record(const std::filesystem::path& dir, ProcessGroup& world) {
  const Found found = find_trained(dir, world);
  const auto stored = [&](const std::string& name) {
    return std::ranges::find(found.tensors, name, &StoredTensor::name);
  };
  SY_REQUIRE(stored(kTokens) != found.tensors.end(), Fault::checkpoint, found.path.string(),
             " holds no routing decisions; `switchyard record` makes such a directory");
  Record record{.config = resolved(read_config(found.state.configuration, found.path.string() + "/manifest.json")),
                .state = found.state};
  const std::int64_t tokens = stored(kTokens)->shape[0], experts = record.config.moe.experts;
  record.steps = tokens / (record.config.train.global_batch * record.config.train.seq_len);
  record.token_T = Tensor::empty({tokens}, DType::i32, Device{});
  std::vector<LogicalTensor> into{{.name = kTokens, .local = record.token_T, .global_shape = {tokens}}};
  const auto want = [&](const std::string& name, const Shape& shape) {
    into.push_back({.name = name, .local = Tensor::empty(shape, DType::f32, Device{}), .global_shape = shape});
    return into.back().local;
  };
  for (const std::int64_t block : blocks_of(record.config)) {
    record.blocks.push_back({block, want(block_name(block) + kLogits, {tokens, experts}), {}});
    if (record.config.moe.router.bias) record.blocks.back().bias_E = want(block_name(block) + kBias, {experts});
  }
  load_checkpoint(found, into, world);
  return record;
}

}  // namespace switchyard
