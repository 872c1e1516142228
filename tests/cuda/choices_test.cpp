#include "cuda/both.h"

namespace switchyard::test {
namespace {

Both scores(std::int64_t tokens, std::int64_t experts) { return random_both({tokens, experts}, DType::f32, 1); }

// Different experts for each token, and now and then none.
Both choices(std::int64_t tokens, std::int64_t top_k, std::int64_t experts, bool with_none) {
  std::vector<std::int32_t> expert;
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t k = 0; k < top_k; ++k)
      expert.push_back(with_none && (t + k) % 7 == 3 ? -1 : std::int32_t((t * t / 3 + k) % experts));
  return both(ints({tokens, top_k}, expert));
}

void expect_same(Both& b) {
  const Tensor gpu = to_device(b.gpu, Device{});
  EXPECT_EQ(std::memcmp(gpu.bytes(), b.cpu.bytes(), gpu.size_in_bytes()), 0);
}

// K terms in the same order: the same bits.
TEST(CudaChoices, Choose) {
  for (const std::int64_t tokens : {0, 5, 530})
    for (const Renormalise renormalise : {Renormalise::no, Renormalise::yes}) {
      const Both p = scores(tokens, 9), expert = choices(tokens, 4, 9, false);
      Both weight = unwritten({tokens, 4}, DType::f32);
      compare({{"weight", &weight, 0x1p-22}},
              [&](const Kernels& k, auto on) { k.choose(on(weight), on(expert), on(p), renormalise); });
    }
}

TEST(CudaChoices, SelectionScores) {
  for (const std::int64_t tokens : {0, 1, 300})
    for (const GroupLimit limit : {GroupLimit{}, GroupLimit{4, 2, 1}, GroupLimit{4, 1, 3}, GroupLimit{12, 5, 1}}) {
      const Both p = scores(tokens, 12), bias = random_both({12}, DType::f32, 2), none{};
      Both score = unwritten({tokens, 12}, DType::f32);
      for (const Both* b : {&bias, &none})
        compare({{"score", &score, 0}},
                [&](const Kernels& k, auto on) { k.selection_scores(on(score), on(p), on(*b), limit); });
    }
}

TEST(CudaChoices, ThinChoices) {
  const Both weight = random_both({300, 3}, DType::f32, 1), random = random_both({300, 3}, DType::f32, 2);
  Both expert = choices(300, 3, 8, false);
  compare({}, [&](const Kernels& k, auto on) { k.thin_choices(on(expert), on(weight), on(random), 0.5f); });
  expect_same(expert);
}

TEST(CudaChoices, CountMeetings) {
  const Both expert = choices(600, 3, 8, true);
  Both met = unwritten({3, 4}, DType::i32);
  compare({}, [&](const Kernels& k, auto on) { k.count_meetings(on(met), on(expert), {.experts = 8, .group = 200}); });
  expect_same(met);
}

TEST(CudaChoices, AdjustBias) {
  std::vector<float> counts;
  for (int e = 0; e < 300; ++e) counts.push_back(float(e % 5));
  const Both count = both(floats({300}, counts));
  Both bias = random_both({300}, DType::f32, 1);
  compare({{"bias", &bias, 0}}, [&](const Kernels& k, auto on) {
    k.zero(on(bias));
    k.adjust_bias(on(bias), on(count), 0.25f);
  });
}

// Integers, decided by comparing keys: the same on both. Some scores are equal, infinite or no number.
TEST(CudaChoices, AdmitByPriority) {
  for (const Priority priority : {Priority::choice_then_score, Priority::score})
    for (const auto& [tokens, top_k, experts, group, capacity] :
         {std::array<std::int64_t, 5>{0, 2, 3, 4, 2}, {12, 2, 3, 6, 2}, {8, 4, 4, 8, 3}, {600, 3, 5, 300, 90}})
      for (const bool each : {false, true}) {
        Tensor score = random({tokens, each ? top_k : 1}, 3);
        for (std::int64_t i = 0; i < score.numel(); ++i)
          score.data<float>()[i] = i % 11 == 5   ? std::nanf("")
                                   : i % 13 == 6 ? -INFINITY
                                                 : std::round(8 * score.data<float>()[i]);
        const Both expert = choices(tokens, top_k, experts, true), by = both(score);
        Both slot = unwritten({tokens, top_k}, DType::i32);
        compare({}, [&, group = group, experts = experts, capacity = capacity](const Kernels& k, auto on) {
          k.admit_by_priority(on(slot), on(expert), on(by), {.experts = experts, .group = group, .capacity = capacity},
                              priority);
        });
        expect_same(slot);
      }
}

TEST(CudaChoices, NeighboursShareACapacity) {
  const Both expert = choices(600, 4, 6, true), score = random_both({600, 4}, DType::f32, 3);
  for (const std::int64_t members : {1, 2, 6}) {
    Both slot = unwritten({600, 4}, DType::i32);
    compare({}, [&](const Kernels& k, auto on) {
      k.admit_by_priority(on(slot), on(expert), on(score),
                          {.experts = 6, .group = 300, .capacity = 150 * members, .members = members}, Priority::score);
    });
    expect_same(slot);
  }
}

// Scores are of size 1, and each round adds some roundings of that size.
TEST(CudaChoices, CappedScores) {
  for (const auto& [tokens, experts, group] :
       {std::array<std::int64_t, 3>{0, 4, 4}, {24, 5, 12}, {5, 40, 5}, {300, 3, 300}}) {
    Both p = random_both({tokens, experts}, DType::f32, 3), score = unwritten({tokens, experts}, DType::f32);
    compare({{"score", &score, 40 * 0x1p-23}}, [&, group = group, experts = experts](const Kernels& k, auto on) {
      k.capped_scores(on(score), on(p), {.experts = experts, .group = group, .capacity = group / 3},
                      {.experts = float(experts) / 2, .entropy = .05f, .rounds = 20});
    });
  }
}

TEST(CudaChoices, NoChoiceTakesNoRoom) {
  const Both expert = choices(600, 3, 5, true);
  Both slot = both(ints({600, 3}, std::vector<std::int32_t>(1800, 9))), chosen = unwritten({2, 3, 5}, DType::i32);
  const Placement placement{.experts = 5, .group = 300, .capacity = 90};
  compare({}, [&](const Kernels& k, auto on) {
    k.admit(on(slot), on(expert), placement);
    k.count_choices(on(chosen), on(expert), placement);
  });
  expect_same(slot);
  expect_same(chosen);
}

}  // namespace
}  // namespace switchyard::test
