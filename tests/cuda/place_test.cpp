#include "cuda/both.h"

namespace switchyard::test {
namespace {

// K different experts of each token; expert 1 is never chosen where there are enough others.
Both choices_of(std::int64_t tokens, std::int64_t choices, std::int64_t experts) {
  Tensor p = random({tokens, experts}, 7);
  if (choices < experts)
    for (std::int64_t t = 0; t < tokens; ++t) p.data<float>()[t * experts + 1] = -2;
  Tensor weight = Tensor::empty({tokens, choices}, DType::f32, Device{}),
         expert = Tensor::empty({tokens, choices}, DType::i32, Device{});
  kernels(Device{}).top_k(weight, expert, p, Renormalise::no);
  return both(expert);
}

// Elements that no kernel gives: -1, the poison of indices, is an answer.
Both unanswered(Shape shape) {
  return both(ints(shape, std::vector<std::int32_t>(static_cast<std::size_t>(shape.numel()), 99'999)));
}

void expect_ints(const Both& x, const char* name, const Placement& p) {
  const Tensor gpu = to_device(x.gpu, Device{});
  for (std::int64_t i = 0; i < gpu.numel(); ++i)
    ASSERT_EQ(gpu.data<std::int32_t>()[i], x.cpu.data<std::int32_t>()[i])
        << name << '[' << i << "] of " << p.experts << " experts, group " << p.group << ", capacity " << p.capacity
        << (p.padded ? ", padded" : "") << ", " << p.parts << " parts";
}

void expect_place(const Both& expert, Placement placement) {
  const std::int64_t tokens = expert.cpu.dim(0), choices = expert.cpu.dim(1);
  Both slot, token, count;
  on_each_schedule([&] {
    slot = unanswered({tokens, choices});
    token = unanswered({placement.rows(tokens, choices)});
    count = unanswered({placement.parts, placement.experts});
    if (placement.capacity > 0) {
      kernels(Device{}).admit(slot.cpu, expert.cpu, placement);
      kernels(kGpu).admit(slot.gpu, expert.gpu, placement);
      expect_ints(slot, "admitted", placement);
    }
    kernels(Device{}).place(slot.cpu, token.cpu, count.cpu, expert.cpu, placement);
    kernels(kGpu).place(slot.gpu, token.gpu, count.gpu, expert.gpu, placement);
    expect_ints(slot, "slot", placement);
    expect_ints(token, "token", placement);
    expect_ints(count, "count", placement);
  });
}

TEST(CudaPlace, GroupsCapacitiesAndAnEmptyExpert) {
  for (std::int64_t choices : {1, 2, 3})
    for (std::int64_t group : {1, 12, 24})
      for (std::int64_t capacity : {0, 1, 2, 5, 30})
        for (bool padded : {false, true})
          expect_place(choices_of(24, choices, 5),
                       {.experts = 5, .group = group, .capacity = capacity, .padded = padded});
}

TEST(CudaPlace, Parts) {
  for (std::int64_t parts : {2, 3})
    for (std::int64_t capacity : {0, 2, 30})
      for (bool padded : {false, true})
        expect_place(choices_of(24, 2, 5),
                     {.experts = 5, .group = 4, .capacity = capacity, .padded = padded, .parts = parts});
}

// Groups of several warps with a tail, and 48 chunks of choices, of which sums down the chunks take two at a time.
TEST(CudaPlace, SeveralChunksAndWarps) {
  const Both expert = choices_of(16'200, 3, 7);
  expect_place(expert, {.experts = 7, .group = 16'200});
  expect_place(expert, {.experts = 7, .group = 1350, .capacity = 400});
  expect_place(expert, {.experts = 7, .group = 1350, .capacity = 400, .padded = true});
  expect_place(expert, {.experts = 7, .group = 1350, .capacity = 400, .parts = 2});
}

TEST(CudaPlace, OneExpertTakesEverything) {
  const Both expert = both(ints({2500, 1}, std::vector<std::int32_t>(2500, 2)));
  for (std::int64_t capacity : {0, 100, 250})
    expect_place(expert, {.experts = 4, .group = 250, .capacity = capacity, .padded = capacity == 100});
}

// More experts than a warp has lanes, than a block has threads, and than one tile of shared counters holds.
TEST(CudaPlace, ManyExperts) {
  for (std::int64_t experts : {64, 300, 2100})
    for (std::int64_t capacity : {0, 2}) {
      const Both expert = choices_of(300, 8, experts);
      expect_place(expert, {.experts = experts, .group = 100, .capacity = capacity});
      expect_place(expert, {.experts = experts, .group = 100, .capacity = capacity, .padded = true});
      expect_place(expert, {.experts = experts, .group = 100, .capacity = capacity, .parts = 3});
    }
}

TEST(CudaPlace, NoTokensGiveNoRows) {
  for (std::int64_t capacity : {0, 3})
    for (bool padded : {false, true})
      expect_place(both(Tensor::empty({0, 2}, DType::i32, Device{})),
                   {.experts = 3, .group = 4, .capacity = capacity, .padded = padded});
}

void expect_counts(const Both& expert, std::int64_t groups, Placement placement) {
  Both chosen;
  on_each_schedule([&] {
    chosen = unanswered({groups, expert.cpu.dim(1), placement.experts});
    kernels(Device{}).count_choices(chosen.cpu, expert.cpu, placement);
    kernels(kGpu).count_choices(chosen.gpu, expert.gpu, placement);
    expect_ints(chosen, "chosen", placement);
  });
}

TEST(CudaPlace, CountChoices) {
  expect_counts(choices_of(24, 2, 5), 2, {.experts = 5, .group = 12});
  expect_counts(choices_of(24, 3, 5), 24, {.experts = 5, .group = 1});
  expect_counts(choices_of(2300, 2, 9), 1, {.experts = 9, .group = 2300});     // parts of a group
  expect_counts(choices_of(30, 8, 300), 3, {.experts = 300, .group = 10});     // tiles of counters
  expect_counts(both(ints({2, 1}, {0, 1})), 1, {.experts = 2, .group = 100});  // a group that is not full
  expect_counts(both(Tensor::empty({0, 1}, DType::i32, Device{})), 1, {.experts = 2, .group = 1});
}

}  // namespace
}  // namespace switchyard::test
