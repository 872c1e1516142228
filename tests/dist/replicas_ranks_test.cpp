#include <gtest/gtest.h>

#include <bit>

#include "dist/consistency.h"
#include "grad_check.h"
#include "ranks.h"

namespace switchyard {
namespace {

Parameter parameter(const char* name, unsigned seed, Replicas replicas, std::int64_t n = 7) {
  Parameter p;
  p.name = name;
  p.variable = Variable(test::random({n}, seed), true);
  p.global_shape = {n};
  p.replicas = replicas;
  return p;
}

std::string complaint_of(const Parameters& parameters, Mesh& mesh, ProcessGroup& world, std::int64_t step = 3) {
  std::string what = "none";
  try {
    require_same_replicas(parameters, step, mesh);
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::communication);
    what = error.what();
  }
  for (const std::string& theirs : all_gather_text(world, what)) EXPECT_EQ(theirs, what);
  return what;
}

// Two data ranks of two tensor ranks each; experts on neighbouring pairs.
struct Copies {
  explicit Copies(ProcessGroup& world) : mesh({.tensor = 2, .expert = 2}, world) {
    const auto r = static_cast<unsigned>(world.rank());
    parameters.push_back(parameter("cut", 10 + r % 2, Replicas::data));
    parameters.push_back(parameter("whole", 20, Replicas::tokens));
    parameters.push_back(parameter("expert", 30 + r % 2, Replicas::expert_data, 9));
  }
  void flip(std::size_t p, std::int64_t i, int bit) {
    float& value = parameters[p].variable.value().data<float>()[i];
    value = std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) ^ 1u << bit);
  }
  std::string complaint(ProcessGroup& world, std::int64_t step = 3) {
    return complaint_of(parameters, mesh, world, step);
  }

  Mesh mesh;
  Parameters parameters;
};

constexpr const char* kBegin = "after step 3 copies of the same parameter have not the same bits:";

TEST(Replicas, AreTheSameWhereCutsDiffer) {
  test::on_ranks({4, 8}, [](ProcessGroup& world) { EXPECT_EQ(Copies(world).complaint(world), "none"); });
}

TEST(Replicas, OneBitOnOneRankIsNamed) {
  test::on_ranks({4}, [](ProcessGroup& world) {
    for (const int bit : {0, 13, 31})
      for (const std::int64_t i : {0, 3, 6}) {
        Copies copies(world);
        if (world.rank() == 2) copies.flip(1, i, bit);
        EXPECT_EQ(copies.complaint(world), text(kBegin, "\n  whole: rank 2 differs from ranks 0, 1 and 3"));
      }
    Copies cut(world);
    if (world.rank() == 3) cut.flip(0, 5, 1);
    EXPECT_EQ(cut.complaint(world), text(kBegin, "\n  cut: rank 3 differs from rank 1"));
    Copies experts(world);
    if (world.rank() == 2) experts.flip(2, 8, 1);
    EXPECT_EQ(experts.complaint(world), text(kBegin, "\n  expert: rank 2 differs from rank 0"));
  });
}

// A value that two ranks have exchanged, and a zero with another sign.
TEST(Replicas, OrderAndSignsCount) {
  test::on_ranks({4}, [](ProcessGroup& world) {
    Copies copies(world);
    float* values = copies.parameters[1].variable.value().data<float>();
    if (world.rank() == 1) std::swap(values[0], values[4]);
    values[2] = world.rank() == 3 ? -0.0f : 0.0f;
    const std::string what = copies.complaint(world);
    EXPECT_NE(what.find("whole: rank 1 differs from ranks 0 and 2"), std::string::npos) << what;
    EXPECT_NE(what.find("whole: rank 3 differs from ranks 0 and 2"), std::string::npos) << what;
  });
}

TEST(Replicas, WhatStagesShareIsComparedAmongThem) {
  test::on_ranks({4}, [](ProcessGroup& world) {
    Mesh mesh({.pipeline = 2}, world);
    Parameters table{parameter("table", 40, Replicas::ends)};
    if (world.rank() == 3) table[0].variable.value().data<float>()[2] += 1;
    EXPECT_EQ(complaint_of(table, mesh, world), text(kBegin, "\n  table: rank 3 differs from ranks 0, 1 and 2"));
  });
}

TEST(Replicas, TheStepIsComparedToo) {
  test::on_ranks({4}, [](ProcessGroup& world) {
    EXPECT_EQ(Copies(world).complaint(world, world.rank() == 1 ? 4 : 3),
              "the ranks do not agree:\n  step: rank 1 has \"4\", ranks 0, 2, 3 have \"3\"");
  });
}

}  // namespace
}  // namespace switchyard
