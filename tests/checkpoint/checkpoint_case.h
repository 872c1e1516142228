#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint/saver.h"
#include "tensor/philox.h"

namespace switchyard::test {

// A directory of its own for each test, gone at its end. In memory where that is possible: these tests wait for the
// disk some thousand times, and what they check does not depend on it.
class Scratch {
 public:
  Scratch() {
    const std::filesystem::path memory = "/dev/shm";
    const auto base = ::access(memory.c_str(), W_OK) == 0 ? memory : std::filesystem::temp_directory_path();
    std::string name = (base / "switchyard-XXXXXX").string();
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    path_ = name;
  }
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

// How the ranks of a world share the tensors below: experts over `ep` of them, copies over the others.
struct Split {
  int world = 1, ep = 1;
  int replica(int rank) const { return rank / ep; }
  int shard(int rank) const { return rank % ep; }
};

// The element at a global index: any 32 bits, NaNs with payloads and negative zeros among them.
inline std::uint32_t expected_bits(const std::string& name, std::int64_t step, std::int64_t index) {
  return philox(philox_key(static_cast<std::uint64_t>(step), name), static_cast<std::uint64_t>(index))[0];
}

inline std::int64_t global_index(const LogicalTensor& t, std::int64_t local) {
  std::int64_t index = 0, stride = 1;
  for (int axis = t.global_shape.rank() - 1; axis >= 0; --axis) {
    const std::int64_t n = t.local.dim(axis);
    index += (t.origin[static_cast<std::size_t>(axis)] + local % n) * stride;
    local /= n;
    stride *= t.global_shape[axis];
  }
  return index;
}

inline void fill(LogicalTensor& t, std::int64_t step) {
  const std::size_t width = size_of(t.local.dtype());
  for (std::int64_t i = 0; i < t.local.numel(); ++i) {
    const std::uint64_t bits = std::uint64_t{0x9E3779B97F4A7C15} * expected_bits(t.name, step, global_index(t, i));
    std::memcpy(t.local.bytes() + static_cast<std::size_t>(i) * width, &bits, width);
  }
}

// The rank's slices of a small model with optimizer state, zeroed: dense tensors that all ranks hold, experts in uneven
// shares (one rank of four has none), a matrix cut on both axes, and integers.
inline std::vector<LogicalTensor> slices(Split split, int rank) {
  std::vector<LogicalTensor> tensors;
  const auto add = [&](std::string name, DType dtype, Shape global, Origin origin, Shape local, int writer) {
    tensors.push_back({std::move(name), Tensor::zeros(local, dtype, Device{}), global, origin, rank == writer});
  };
  const auto cut = [&](std::int64_t rows, int part, int parts) {  // 0, 1/8, 1/2, 1/2, 1 of the rows for four parts
    const std::int64_t eighths[3][5] = {{0, 8}, {0, 3, 8}, {0, 1, 4, 4, 8}};
    return rows * eighths[parts / 2][part] / 8;
  };
  for (const char* kind : {"model.", "optimizer.m.", "optimizer.v."}) {
    const int last = split.world - 1, s = split.shard(rank);
    add(std::string(kind) + "embed_tokens.weight", DType::f32, {7, 5}, {}, {7, 5}, 0);
    add(std::string(kind) + "norm.weight", DType::f32, {5}, {}, {5}, last);
    const std::int64_t begin = cut(16, s, split.ep), end = cut(16, s + 1, split.ep);
    add(std::string(kind) + "layers.1.mlp.experts.gate_up_proj", DType::f32, {16, 6, 4}, {begin}, {end - begin, 6, 4},
        s);
    const int parts = split.world / split.ep, r = split.replica(rank);
    const std::int64_t top = cut(8, r, parts), bottom = cut(8, r + 1, parts);
    const std::int64_t left = cut(24, s, split.ep), right = cut(24, s + 1, split.ep);
    add(std::string(kind) + "both_axes", DType::f32, {8, 24}, {top, left}, {bottom - top, right - left}, rank);
  }
  add("counts.i64", DType::i64, {3}, {}, {3}, 0);
  add("counts.i32", DType::i32, {2, 1, 1, 3}, {}, {2, 1, 1, 3}, 0);
  add("counts.u8", DType::u8, {9}, {}, {9}, 0);
  return tensors;
}

inline TrainingState state_of(std::int64_t step) {
  TrainingState state;
  state.step = state.optimizer_step = step;
  state.tokens = step << 33;
  state.seed = 0xFFFFFFFFFFFFFFFF;
  state.data_position = step * 32;
  state.configuration = "run:\n  dir: \"runs/é\"\n";
  state.tokenizer = "bytes";
  state.tokenizer_sha256 = std::string(64, 'a');
  state.code_version = "0.1.0";
  state.layout = "data 1 x expert 1";
  return state;
}

enum class Mode { blocking, background };

// Saves; in the background while the run's own tensors change.
inline void save(const std::filesystem::path& dir, std::int64_t step, Split split, int keep = 3,
                 const SaveObserver& observer = {}, Mode mode = Mode::blocking) {
  run_ranks(split.world, [&](ProcessGroup& world) {
    auto tensors = slices(split, world.rank());
    for (LogicalTensor& tensor : tensors) fill(tensor, step);
    if (mode == Mode::blocking) {
      save_checkpoint(dir, tensors, state_of(step), world, keep, observer);
      return;
    }
    Saver saver({dir, keep, {}, observer}, world);
    saver.start(tensors, state_of(step));
    for (LogicalTensor& tensor : tensors) fill(tensor, step + 1);
    saver.finish();
  });
}

// Bit for bit what save() put there, wherever each rank's slices came from.
inline void expect_holds(const std::vector<LogicalTensor>& tensors, std::int64_t step) {
  for (const LogicalTensor& actual : tensors) {
    LogicalTensor expected = actual;
    expected.local = zeros_like(actual.local);
    fill(expected, step);
    EXPECT_EQ(std::memcmp(actual.local.bytes(), expected.local.bytes(), actual.local.size_in_bytes()), 0)
        << actual.name << " of step " << step;
  }
}

// What find_checkpoint leads to, on one rank: its step, or 0 where there is nothing. Its contents are checked.
inline std::int64_t resume(const std::filesystem::path& dir, std::vector<std::string>* warnings = nullptr) {
  const auto self = make_self_group();
  const auto found = find_checkpoint(dir, *self);
  if (!found) return 0;
  if (warnings) *warnings = found->warnings;
  auto tensors = slices({}, 0);
  EXPECT_EQ(load_checkpoint(*found, tensors, *self), state_of(found->state.step));
  expect_holds(tensors, found->state.step);
  return found->state.step;
}

// The text of the Error that `body` throws, which must be of Fault::checkpoint.
template <class Body>
std::string refusal(Body body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::checkpoint) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was refused";
  return "";
}

}  // namespace switchyard::test
