#include "dist/shards.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>

#include "dist/gradients.h"
#include "ranks.h"
#include "slices.h"

namespace switchyard {
namespace {

using test::floats, test::random;

// Parameters of every kind, cut over tensor ranks or spread over expert ranks as a model's are.
const std::vector<Shape> kShapes{{24, 5}, {7}, {8, 3, 4}, {16, 16}, {8, 1, 1}, {33}, {40, 30}};

Tensor value_of(std::size_t p) { return random(kShapes[p], static_cast<unsigned>(p)); }

Parameters make_parameters(Mesh& mesh) {
  Parameters parameters;
  for (std::size_t p = 0; p < kShapes.size(); ++p) {
    const Replicas replicas = kShapes[p].rank() == 3   ? Replicas::expert_data
                              : kShapes[p].rank() == 2 ? Replicas::data
                                                       : Replicas::tokens;
    Box box{{}, kShapes[p]};
    if (replicas != Replicas::tokens) {
      const ProcessGroup& over = replicas == Replicas::data ? *mesh.tensor : *mesh.experts;
      const std::int64_t rows = kShapes[p][0] / over.size();
      box = cut(box, 0, rows * over.rank(), rows * (over.rank() + 1));
    }
    Parameter parameter{.name = text("p", p),
                        .variable = Variable(Tensor::empty(box.shape, DType::f32, Device{}), true),
                        .global_shape = kShapes[p],
                        .boxes = {box},
                        .replicas = replicas,
                        .reads = replicas == Replicas::tokens ? Reads::f32 : Reads::rows};
    parameter.variable.value() = test::slice_of(value_of(p), parameter);
    parameters.push_back(parameter);
  }
  return parameters;
}

const ProcessGroup& holders_of(const Parameter& p, const Mesh& mesh) {
  return p.replicas == Replicas::tokens ? *mesh.tokens : p.replicas == Replicas::data ? *mesh.data : *mesh.expert_data;
}

void on_layouts(const std::function<void(Mesh& mesh, std::int64_t bucket_bytes)>& body) {
  test::on_ranks({1, 2, 4, 8}, [&](ProcessGroup& world) {
    for (const ParallelConfig& parallel :
         {ParallelConfig{}, {.expert = 2}, {.tensor = 2}, {.tensor = 2, .expert = 4}}) {
      if (world.size() % parallel.tensor != 0 || world.size() % parallel.expert != 0) continue;
      Mesh mesh(parallel, world);
      SCOPED_TRACE(describe(mesh.layout));
      for (const std::int64_t bucket_bytes : {0, 2000, 1 << 20}) body(mesh, bucket_bytes);
    }
  });
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.numel() == b.numel() && std::memcmp(a.bytes(), b.bytes(), a.size_in_bytes()) == 0;
}

TEST(Shards, EachElementHasOneOwnerWhoHasItsValue) {
  on_layouts([](Mesh& mesh, std::int64_t bucket_bytes) {
    for (const Masters masters : {Masters::whole, Masters::own}) {
      Parameters parameters = make_parameters(mesh);
      Shards shards(parameters, mesh, bucket_bytes, masters, DType::bf16);
      std::vector<Tensor> owners;
      for (const Shape& shape : kShapes) owners.push_back(Tensor::zeros({shape.numel()}, DType::i32, Device{}));
      for (const Parameter& part : shards.own()) {
        const auto p = std::size_t(std::stoi(part.name.substr(1)));
        EXPECT_TRUE(same_bits(part.variable.value(), test::slice_of(value_of(p), part))) << part.name;
        for (const Box& box : part.boxes)
          for_each_index(box, part.global_shape, [&](std::int64_t i) { ++owners[p].data<std::int32_t>()[i]; });
      }
      for (Tensor& count : owners) {
        mesh.tokens->all_reduce(count, Reduce::sum);
        for (std::int64_t i = 0; i < count.numel(); ++i) ASSERT_EQ(count.data<std::int32_t>()[i], 1);
      }
    }
  });
}

// What forward reads, before and after the masters changed: their values, or those rounded.
TEST(Shards, GatherGivesAllRanksWhatTheOwnersHave) {
  on_layouts([](Mesh& mesh, std::int64_t bucket_bytes) {
    for (const DType rows : {DType::f32, DType::bf16}) {
      Parameters parameters = make_parameters(mesh);
      Shards shards(parameters, mesh, bucket_bytes, Masters::own, rows);
      const auto expect_values = [&](float factor) {
        for (std::size_t p = 0; p < parameters.size(); ++p) {
          Tensor whole = value_of(p);
          for (std::int64_t i = 0; i < whole.numel(); ++i) whole.data<float>()[i] *= factor;
          const Tensor& value = parameters[p].variable.value();
          const bool rounds = parameters[p].reads == Reads::rows && holders_of(parameters[p], mesh).size() > 1;
          EXPECT_EQ(value.dtype(), rounds ? rows : DType::f32);
          EXPECT_TRUE(same_bits(value, cast(test::slice_of(whole, parameters[p]), value.dtype()))) << "p" << p;
        }
      };
      expect_values(1);
      for (Parameter& part : shards.masters())
        for (std::int64_t i = 0; i < part.variable.value().numel(); ++i)
          part.variable.value().data<float>()[i] *= 0.75f;
      shards.gather();
      expect_values(0.75f);
    }
  });
}

// The owner's sums are those that every rank would have, bit for bit; nobody keeps anything else.
TEST(Shards, GradientsArriveAtTheirOwners) {
  on_layouts([](Mesh& mesh, std::int64_t bucket_bytes) {
    const auto sums = [&](Masters masters, Parameters& parameters) {
      Shards shards(parameters, mesh, bucket_bytes, masters, DType::bf16);
      GradientBuckets buckets(shards);
      for (int step = 0; step < 2; ++step) {  // used again
        shards.zero_grad();
        for (std::size_t p = 0; p < parameters.size(); ++p)
          if ((p + std::size_t(mesh.tokens->rank())) % 3 > 0)
            parameters[p].variable.accumulate(random(parameters[p].variable.shape(),
                                                     unsigned(p) * 10 + unsigned(mesh.tokens->rank()) + unsigned(step),
                                                     1e3f));
        buckets.finish();
      }
      return shards.own();
    };
    Parameters replicated = make_parameters(mesh), sharded = make_parameters(mesh);
    const Parameters expected = sums(Masters::whole, replicated), actual = sums(Masters::own, sharded);
    ASSERT_EQ(actual.size(), expected.size());
    for (std::size_t i = 0; i < actual.size(); ++i) {
      EXPECT_EQ(actual[i].name, expected[i].name);
      EXPECT_TRUE(same_bits(actual[i].variable.grad(), expected[i].variable.grad())) << actual[i].name;
    }
    for (const Parameter& p : sharded) EXPECT_EQ(bool(p.variable.grad()), holders_of(p, mesh).size() == 1) << p.name;
  });
}

// The first of two ranks that hold the same. What it gathers comes when it is awaited.
class LateGroup final : public ProcessGroup {
 public:
  explicit LateGroup(int& awaited) : awaited_(awaited) {}
  int rank() const override { return 0; }
  int size() const override { return 2; }
  void barrier() override {}
  [[noreturn]] void abort(int) override { std::abort(); }

 private:
  void do_all_reduce(Tensor&, Reduce) override {}
  void do_broadcast(Tensor&, int) override {}
  void do_all_gather(Tensor& out, const Tensor& in) override {
    for (int r = 0; r < 2; ++r)
      std::memcpy(out.bytes() + r * std::ptrdiff_t(in.size_in_bytes()), in.bytes(), in.size_in_bytes());
  }
  Wait do_start_all_gather(Tensor& out, const Tensor& in) override {
    return [this, out, in]() mutable {
      do_all_gather(out, in);
      ++awaited_;
    };
  }
  void do_reduce_scatter(Tensor&, const Tensor&) override {}
  void do_all_to_all(Tensor&, std::span<const int>, const Tensor&, std::span<const int>) override {}
  std::unique_ptr<ProcessGroup> do_split(int) override { return make_self_group(); }

  int& awaited_;
};

TEST(Shards, ValuesAreAwaitedWhereTheyAreReadAndAtTheEnd) {
  const auto self = make_self_group();
  Mesh mesh({}, *self);
  int awaited = 0;
  mesh.tokens = std::make_unique<LateGroup>(awaited);
  Parameters parameters;
  for (const char* name : {"a", "b", "c"})
    parameters.push_back({.name = name,
                          .variable = Variable(random({32}, 1), true),
                          .global_shape = {32},
                          .boxes = {{{}, {32}}},
                          .replicas = Replicas::tokens});
  {
    Shards shards(parameters, mesh, 0, Masters::own, DType::f32);
    for (Parameter& own : shards.masters()) own.variable.value().data<float>()[3] = 7;
    shards.gather();
    EXPECT_EQ(awaited, 0);
    EXPECT_EQ(test::at(parameters[1].variable.value(), 3 + 16), 7) << "the other rank has the same";
    EXPECT_EQ(awaited, 1);
    EXPECT_EQ(test::at(parameters[1].variable.value(), 3), 7);
    EXPECT_EQ(awaited, 1);
    shards.masters()[0].variable.value().data<float>()[3] = 8;  // of c, whose values are on their way
    EXPECT_EQ(awaited, 2);
    shards.gather();
    EXPECT_EQ(awaited, 3) << "a came, too, before its next values left";
    awaited = 0;
  }
  EXPECT_EQ(awaited, 3);
  EXPECT_EQ(test::at(parameters[2].variable.value(), 3 + 16), 8);
}

}  // namespace
}  // namespace switchyard
