#include "train/restore.h"

#include <numeric>

#include "dist/device_group.h"
#include "train/config_reader.h"
#include "train/config_rules.h"
#include "train/messages.h"
#include "train/setup.h"
#include "train/state.h"

namespace switchyard {

Found find_trained(const std::filesystem::path& path, ProcessGroup& world) {
  SY_REQUIRE(std::filesystem::exists(path), Fault::checkpoint, "there is no ", path.string());
  if (std::filesystem::exists(path / "manifest.json")) {
    const CheckpointReport report = verify_checkpoint(path);
    SY_REQUIRE(report.problems.empty(), Fault::checkpoint, path.string(), ": ", report.problems.front());
    return {report, {}, {}};
  }
  const std::filesystem::path inside = path / "checkpoints";
  const std::optional<Found> found = find_checkpoint(std::filesystem::exists(inside) ? inside : path, world);
  SY_REQUIRE(found, Fault::checkpoint, "no checkpoint in ", path.string(),
             "; a run saves its first after checkpoint.every steps, or when it ends");
  for (const std::string& warning : found->warnings) warn(world, warning);
  return *found;
}

Restored restore(const std::filesystem::path& path, const std::vector<std::string>& overrides, ProcessGroup& world) {
  for (const std::string& change : overrides)
    SY_REQUIRE(!change.starts_with("parallel.") && !change.starts_with("parallel="), Fault::usage, change,
               ": a trained model is spread over the ranks that are started, whatever layout saved it; leave this out");
  const Found found = find_trained(path, world);

  Restored r;
  r.path = found.path;
  r.config = read_config(found.state.configuration, found.path.string() + "/manifest.json", overrides);
  r.config.parallel = {
      .data = world.size(),
      .expert = r.config.moe.experts > 0 ? std::gcd(static_cast<int>(r.config.moe.experts), world.size()) : 1};
  r.device = choose_device(r.config.run.device, world);
  r.world = make_device_world(world, r.device);
  share_cores(r.config.run.threads, world);
  r.mesh = std::make_unique<Mesh>(r.config.parallel, *r.world);
  r.model = std::make_unique<Transformer>(make_model(r.config, r.device, *r.mesh));
  std::vector<LogicalTensor> tensors = logical_tensors(r.model->parameters(), *r.mesh);
  for (const LogicalTensor& state : logical_tensors(r.model->states(), *r.mesh)) tensors.push_back(state);
  r.state = load_checkpoint(found, tensors, world, Unread::allow);
  for (Parameter& p : r.model->parameters()) p.variable.refresh_weight();
  return r;
}

std::filesystem::path run_of(const std::filesystem::path& checkpoint) {
  const std::filesystem::path checkpoints = std::filesystem::canonical(checkpoint).parent_path();
  SY_REQUIRE(checkpoints.filename() == "checkpoints", Fault::usage, checkpoint.string(),
             " lies in no run; say with --out DIR where to write");
  return std::filesystem::proximate(checkpoints.parent_path());
}

}  // namespace switchyard
