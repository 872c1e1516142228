#include "checkpoint_case.h"

namespace switchyard::test {
namespace {

// Ways to cut the same tensors: each axis of tensor parallelism over `parts` ranks, or the flat elements.
enum class Cut { whole, fused_rows, columns, flat };

struct Layout {
  Cut cut;
  int ranks;
};

constexpr Layout kLayouts[] = {{Cut::whole, 1},      {Cut::whole, 2},   {Cut::fused_rows, 2},
                               {Cut::fused_rows, 4}, {Cut::columns, 4}, {Cut::columns, 2},
                               {Cut::flat, 1},       {Cut::flat, 2},    {Cut::flat, 4}};

void add(std::vector<LogicalTensor>& tensors, const std::string& name, const Shape& global, const Box& box,
         bool writer = true) {
  tensors.push_back({name, Tensor::zeros(box.shape, DType::f32, Device{}), global, box.origin, writer});
}

// A rank's share of rows that are fused one under the other, as q | k | v and gate | up are: a piece of each.
void add_rows(std::vector<LogicalTensor>& tensors, const std::string& name, const Shape& global, int axis,
              const std::vector<std::int64_t>& fused, int rank, int ranks) {
  std::int64_t begin = 0;
  for (const std::int64_t rows : fused) {
    for (std::int64_t expert = 0; expert < (axis == 1 ? global[0] : 1); ++expert) {
      Box box{{}, global.with(axis, rows / ranks)};
      if (axis == 1) box = {{expert}, box.shape.with(0, 1)};
      box.origin[static_cast<std::size_t>(axis)] = begin + rank * (rows / ranks);
      add(tensors, name, global, box);
    }
    begin += rows;
  }
}

// Uneven shares of the elements, one of four empty; all pieces are views of one flat buffer, as a sharded optimizer
// keeps them.
void add_flat(std::vector<LogicalTensor>& tensors, const std::string& name, const Shape& global, int rank, int ranks) {
  const std::int64_t sevenths[3][5] = {{0, 7}, {0, 3, 7}, {0, 1, 4, 4, 7}};
  const std::int64_t begin = global.numel() * sevenths[ranks / 2][rank] / 7,
                     end = global.numel() * sevenths[ranks / 2][rank + 1] / 7;
  const Tensor flat = Tensor::zeros({end - begin}, DType::f32, Device{});
  std::int64_t at = 0;
  for (const Box& box : cut_flat({{{}, global}}, begin, end)) {
    tensors.push_back({name, flat.rows(at, at + box.shape.numel()).view(box.shape), global, box.origin, true});
    at += box.shape.numel();
  }
}

std::vector<LogicalTensor> pieces(Layout layout, int rank) {
  const Shape qkv{24, 6}, out{5, 16}, experts{4, 8, 6};
  std::vector<LogicalTensor> tensors;
  switch (layout.cut) {
    case Cut::whole:
      for (const auto& [name, shape] : {std::pair("qkv", qkv), {"out", out}, {"experts", experts}})
        add(tensors, name, shape, {{}, shape}, rank == 0);
      break;
    case Cut::fused_rows:
      add_rows(tensors, "qkv", qkv, 0, {16, 4, 4}, rank, layout.ranks);
      add(tensors, "out", out, {{0, 16 / layout.ranks * rank}, {5, 16 / layout.ranks}});
      add_rows(tensors, "experts", experts, 1, {4, 4}, rank, layout.ranks);
      break;
    case Cut::columns:  // several to a rank, in turns
      for (std::int64_t c = rank; c < 16; c += layout.ranks) add(tensors, "out", out, {{0, c}, {5, 1}});
      for (std::int64_t c = rank; c < 6; c += layout.ranks) {
        add(tensors, "qkv", qkv, {{0, c}, {24, 1}});
        add(tensors, "experts", experts, {{0, 0, c}, {4, 8, 1}});
      }
      break;
    case Cut::flat:
      add_flat(tensors, "qkv", qkv, rank, layout.ranks);
      add_flat(tensors, "out", out, rank, layout.ranks);
      add_flat(tensors, "experts", experts, rank, layout.ranks);
  }
  return tensors;
}

TEST(Pieces, OfAnyCutLoadAsAnyOther) {
  for (const Layout from : kLayouts) {
    const Scratch scratch;
    run_ranks(from.ranks, [&](ProcessGroup& world) {
      auto tensors = pieces(from, world.rank());
      for (LogicalTensor& tensor : tensors) fill(tensor, 1);
      save_checkpoint(scratch / "run", tensors, state_of(1), world, 1);
    });
    const CheckpointReport report = verify_checkpoint(scratch / "run");
    EXPECT_EQ(report.problems, std::vector<std::string>());
    for (const Layout to : kLayouts) {
      SCOPED_TRACE(text("cut ", int(from.cut), " over ", from.ranks, " to ", int(to.cut), " over ", to.ranks));
      run_ranks(to.ranks, [&](ProcessGroup& world) {
        auto tensors = pieces(to, world.rank());
        load_checkpoint(scratch / "run/step-00000001", tensors, world);
        expect_holds(tensors, 1);
      });
    }
  }
}

// What one rank reads may overlap: a parameter whole, and a part of it once more.
TEST(Pieces, MayOverlapWhenLoaded) {
  const Scratch scratch;
  run_ranks(2, [&](ProcessGroup& world) {
    auto tensors = pieces({Cut::flat, 2}, world.rank());
    for (LogicalTensor& tensor : tensors) fill(tensor, 1);
    save_checkpoint(scratch / "run", tensors, state_of(1), world, 1);
    auto into = pieces({Cut::whole, 1}, 0);
    const auto parts = pieces({Cut::fused_rows, 2}, world.rank());
    into.insert(into.end(), parts.begin(), parts.end());
    load_checkpoint(scratch / "run/step-00000001", into, world);
    expect_holds(into, 1);
  });
}

TEST(Pieces, OfOneRankThatDisagreeAreRefused) {
  const Scratch scratch;
  const auto self = make_self_group();
  const auto why = [&](const LogicalTensor& other) {
    std::vector<LogicalTensor> tensors;
    add(tensors, "w", {4, 2}, {{}, {2, 2}});
    tensors.push_back(other);
    try {
      save_checkpoint(scratch / "run", tensors, state_of(1), *self, 1);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(why({"w", Tensor::zeros({2, 2}, DType::i32, Device{}), {4, 2}, {2}}).find("w is f32 (4, 2)"),
            std::string::npos);
  EXPECT_NE(why({"w", Tensor::zeros({2, 2}, DType::f32, Device{}), {6, 2}, {2}}).find("and f32 (6, 2)"),
            std::string::npos);
  EXPECT_EQ(why({"w", Tensor::zeros({2, 2}, DType::f32, Device{}), {4, 2}, {1}}), "w: two slices hold [1:2, 0:2]");
  EXPECT_EQ(why({"w", Tensor::zeros({2, 2}, DType::f32, Device{}), {4, 2}, {2}}), "");
}

// Hundreds of pieces a tensor, as of many ranks: which a save or a load quadratic in them would be slow at.
TEST(Pieces, ByTheHundred) {
  const Scratch scratch;
  const Shape shape{4, 1000};
  constexpr std::int64_t kPieces = 1000;
  const auto self = make_self_group();
  std::vector<LogicalTensor> tensors;
  for (std::int64_t c = 0; c < kPieces; ++c) add(tensors, "w", shape, {{0, c}, {4, 1}});
  for (LogicalTensor& tensor : tensors) fill(tensor, 1);
  save_checkpoint(scratch / "run", tensors, state_of(1), *self, 1);
  std::vector<LogicalTensor> whole;
  add(whole, "w", shape, {{}, shape});
  load_checkpoint(scratch / "run/step-00000001", whole, *self);
  expect_holds(whole, 1);
}

}  // namespace
}  // namespace switchyard::test
