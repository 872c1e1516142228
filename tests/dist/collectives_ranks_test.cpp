#include "dist/collectives.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "dist/exchange.h"
#include "grad_check.h"
#include "ranks.h"

namespace switchyard {
namespace {

using test::on_ranks;

// What rank `rank` brings at index i: floats of either sign over eight octaves, so that the order of a sum shows, and a
// -0 whose sum with its like is -0 again.
float part(int rank, std::int64_t i) {
  if (i == 4) return -0.0f;
  const auto h = static_cast<std::uint32_t>(i + 1) * 2654435761u ^ static_cast<std::uint32_t>(rank + 1) * 2246822519u;
  return std::ldexp(static_cast<float>(static_cast<std::int32_t>(h * 3266489917u)), -static_cast<int>(h >> 29));
}

template <class T>
Tensor filled(Shape shape, const std::function<T(std::int64_t)>& value) {
  Tensor t = Tensor::empty(shape, dtype_of<T>, Device{});
  for (std::int64_t i = 0; i < t.numel(); ++i) t.data<T>()[i] = value(i);
  return t;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() && std::memcmp(a.bytes(), b.bytes(), a.size_in_bytes()) == 0;
}

// Threads and processes pass the same test against the definition, bit for bit, and so agree with each other.
TEST(AllReduce, SumsInRankOrder) {
  on_ranks([](ProcessGroup& group) {
    const std::int64_t above_one_piece = (1 << 20) + 3;  // of the 4 MiB that travel at a time under MPI
    bool order_shows = false;
    for (std::int64_t n : {std::int64_t{0}, std::int64_t{1}, std::int64_t{2}, std::int64_t{5}, std::int64_t{3000},
                           group.size() == 3 ? above_one_piece : std::int64_t{7}}) {
      Tensor x = filled<float>({n}, [&](auto i) { return part(group.rank(), i); });
      const Tensor expected = filled<float>({n}, [&](auto i) {
        float sum = part(0, i), backwards = part(group.size() - 1, i);
        for (int r = 1; r < group.size(); ++r) sum += part(r, i);
        for (int r = group.size() - 2; r >= 0; --r) backwards += part(r, i);
        order_shows |= sum != backwards;
        return sum;
      });
      group.all_reduce(x, Reduce::sum);
      EXPECT_TRUE(same_bits(x, expected)) << n << " elements";
    }
    EXPECT_EQ(order_shows, group.size() > 2) << "the numbers of this test do not show the order of the sum";
  });
}

// My block of the sum, in rank order; bf16 is summed in f32 and rounded once.
TEST(ReduceScatter, SumsEachRanksBlockInRankOrder) {
  on_ranks([](ProcessGroup& group) {
    const std::int64_t above_one_piece = (1 << 20) + 3;  // of the 4 MiB that travel at a time under MPI
    for (DType dtype : {DType::f32, DType::bf16})
      for (std::int64_t n : {std::int64_t{0}, std::int64_t{1}, std::int64_t{6},
                             group.size() == 3 && dtype == DType::f32 ? above_one_piece : std::int64_t{7}}) {
        const auto brought = [&](int rank) {
          return cast(filled<float>({group.size() * n}, [&](auto i) { return part(rank, i); }), dtype);
        };
        const Tensor in = brought(group.rank()).view({group.size(), n});
        Tensor out = Tensor::empty({n}, dtype, Device{});
        group.reduce_scatter(out, in);
        Tensor sum = Tensor::zeros({n}, DType::f32, Device{});
        for (int r = 0; r < group.size(); ++r) {
          const Tensor theirs = cast(brought(r), DType::f32);
          for (std::int64_t i = 0; i < n; ++i) {
            const float x = theirs.data<float>()[group.rank() * n + i];
            sum.data<float>()[i] = r == 0 ? x : sum.data<float>()[i] + x;
          }
        }
        EXPECT_TRUE(same_bits(out, cast(sum, dtype))) << n << " elements of " << dtype;
      }
  });
}

TEST(ReduceScatter, RefusesBlocksThatDoNotFit) {
  on_ranks([](ProcessGroup& group) {
    Tensor out = Tensor::empty({2}, DType::f32, Device{});
    EXPECT_THROW(group.reduce_scatter(out, Tensor::zeros({2 * group.size() + 1}, DType::f32, Device{})), Error);
    Tensor whole = Tensor::empty({2}, DType::i32, Device{});
    EXPECT_THROW(group.reduce_scatter(whole, Tensor::zeros({2 * group.size()}, DType::i32, Device{})), Error);
  });
}

TEST(AllReduce, Integers) {
  on_ranks([](ProcessGroup& group) {
    const int n = group.size();
    Tensor sum = test::ints({3}, {group.rank(), 1 << 24 | 1, -group.rank()});
    group.all_reduce(sum, Reduce::sum);
    EXPECT_TRUE(same_bits(sum, test::ints({3}, {n * (n - 1) / 2, n * (1 << 24 | 1), -n * (n - 1) / 2})));
    Tensor max = test::ints({2, 1}, {group.rank(), -group.rank()});
    group.all_reduce(max, Reduce::max);
    EXPECT_TRUE(same_bits(max, test::ints({2, 1}, {n - 1, 0})));
  });
}

TEST(AllReduce, TheLargestWinsAndNaNIsTheLargest) {
  on_ranks([](ProcessGroup& group) {
    const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
    const int last = group.size() - 1;
    Tensor x = test::floats({4}, {part(group.rank(), 0), group.rank() == 0 ? nan : infinity,
                                  group.rank() == last ? nan : infinity, group.rank() == last ? -infinity : -2});
    group.all_reduce(x, Reduce::max);
    float largest = part(0, 0);
    for (int r = 1; r < group.size(); ++r) largest = std::max(largest, part(r, 0));
    EXPECT_EQ(x.data<float>()[0], largest);
    EXPECT_TRUE(std::isnan(x.data<float>()[1]));
    EXPECT_TRUE(std::isnan(x.data<float>()[2]));
    EXPECT_EQ(x.data<float>()[3], last > 0 ? -2 : -infinity);
  });
}

template <class T>
void broadcast_and_gather(ProcessGroup& group) {
  for (std::int64_t n : {0, 1, 37}) {
    const auto value = [](int rank, std::int64_t i) { return T(static_cast<float>((rank * 40 + i) % 120)); };
    for (int root = 0; root < group.size(); ++root) {
      Tensor x = filled<T>({n}, [&](auto i) { return value(group.rank(), i); });
      group.broadcast(x, root);
      EXPECT_TRUE(same_bits(x, filled<T>({n}, [&](auto i) { return value(root, i); })));
    }
    Tensor all = Tensor::empty({group.size(), n}, dtype_of<T>, Device{});
    group.all_gather(all, filled<T>({n}, [&](auto i) { return value(group.rank(), i); }));
    EXPECT_TRUE(
        same_bits(all, filled<T>({group.size(), n}, [&](auto i) { return value(static_cast<int>(i / n), i % n); })));
  }
}

TEST(Broadcast, AndAllGatherCarryEveryType) {
  on_ranks([](ProcessGroup& group) {
    broadcast_and_gather<float>(group);
    broadcast_and_gather<bf16>(group);
    broadcast_and_gather<std::int32_t>(group);
    broadcast_and_gather<std::int64_t>(group);
    broadcast_and_gather<std::uint16_t>(group);
    broadcast_and_gather<std::uint8_t>(group);
  });
}

// Rows from rank to rank: uneven, some none; rank 1 sends nothing at all and the last rank receives nothing.
int rows_between(int from, int to, int size) {
  return size > 1 && (from == 1 || to == size - 1) ? 0 : (from * 5 + to * 3 + 2) % 4;
}

Exchange uneven_exchange(const ProcessGroup& group) {
  Exchange rows;
  for (int r = 0; r < group.size(); ++r) {
    rows.send.push_back(rows_between(group.rank(), r, group.size()));
    rows.recv.push_back(rows_between(r, group.rank(), group.size()));
  }
  return rows;
}

int sum(const std::vector<int>& counts) { return std::accumulate(counts.begin(), counts.end(), 0); }

// The rows that lie at one end of an exchange, each named by (from, to, its number among those).
Tensor rows_at_sender(ProcessGroup& group, std::int64_t width,
                      const std::function<float(int, int, int, std::int64_t)>& f) {
  std::vector<float> values;
  for (int to = 0; to < group.size(); ++to)
    for (int i = 0; i < rows_between(group.rank(), to, group.size()); ++i)
      for (std::int64_t d = 0; d < width; ++d) values.push_back(f(group.rank(), to, i, d));
  return test::floats({static_cast<std::int64_t>(values.size()) / width, width}, values);
}

Tensor rows_at_receiver(ProcessGroup& group, std::int64_t width,
                        const std::function<float(int, int, int, std::int64_t)>& f) {
  std::vector<float> values;
  for (int from = 0; from < group.size(); ++from)
    for (int i = 0; i < rows_between(from, group.rank(), group.size()); ++i)
      for (std::int64_t d = 0; d < width; ++d) values.push_back(f(from, group.rank(), i, d));
  return test::floats({static_cast<std::int64_t>(values.size()) / width, width}, values);
}

float row_value(int from, int to, int i, std::int64_t d) {
  return static_cast<float>(from * 1000 + to * 100 + i * 10) + static_cast<float>(d);
}

TEST(AllToAll, CarriesUnevenRowsOfEveryType) {
  on_ranks([](ProcessGroup& group) {
    const Exchange rows = uneven_exchange(group);
    for (std::int64_t width : {1, 6})
      for (DType dtype : {DType::f32, DType::bf16}) {
        const Tensor in = cast(rows_at_sender(group, width, row_value), dtype);
        Tensor out = Tensor::empty({sum(rows.recv), width}, dtype, Device{});
        group.all_to_all(out, rows.recv, in, rows.send);
        EXPECT_TRUE(same_bits(out, cast(rows_at_receiver(group, width, row_value), dtype)));
      }
  });
}

TEST(AllToAll, CarriesRowsOfAnyRank) {
  on_ranks([](ProcessGroup& group) {
    const std::vector<int> one(static_cast<std::size_t>(group.size()), 1);
    const Tensor in =
        filled<std::int32_t>({group.size()}, [&](auto i) { return group.rank() * 10 + static_cast<int>(i); });
    Tensor out = empty_like(in);
    group.all_to_all(out, one, in, one);
    EXPECT_TRUE(same_bits(
        out, filled<std::int32_t>({group.size()}, [&](auto i) { return static_cast<int>(i) * 10 + group.rank(); })));

    const Tensor blocks = in.view({group.size(), 1, 1});
    Tensor blocks_out = empty_like(blocks);
    group.all_to_all(blocks_out, one, blocks, one);
    EXPECT_TRUE(same_bits(blocks_out.view({group.size()}), out));

    const Tensor no_width = Tensor::empty({group.size(), 0}, DType::f32, Device{});
    Tensor no_width_out = empty_like(no_width);
    group.all_to_all(no_width_out, one, no_width, one);
  });
}

// What was begun is there after Wait, though another has begun in between.
TEST(AllToAll, TwoMayBeUnderWayAtOnce) {
  on_ranks([](ProcessGroup& group) {
    const Exchange rows = uneven_exchange(group), back = rows.reversed();
    const Tensor there = rows_at_sender(group, 3, row_value),
                 here = cast(rows_at_receiver(group, 2, row_value), DType::bf16);
    Tensor first = Tensor::empty({sum(rows.recv), 3}, DType::f32, Device{});
    Tensor second = Tensor::empty({sum(rows.send), 2}, DType::bf16, Device{});
    const Wait first_came = group.start_all_to_all(first, rows.recv, there, rows.send);
    const Wait second_came = group.start_all_to_all(second, back.recv, here, back.send);
    group.barrier();
    if (first_came) first_came();
    EXPECT_TRUE(same_bits(first, rows_at_receiver(group, 3, row_value)));
    if (second_came) second_came();
    EXPECT_TRUE(same_bits(second, cast(rows_at_sender(group, 2, row_value), DType::bf16)));
  });
}

TEST(Text, OfAnyLengthAndContent) {
  on_ranks([](ProcessGroup& group) {
    const auto words = [](int rank) {
      std::string word(static_cast<std::size_t>(rank * rank * 50), static_cast<char>('a' + rank));
      return rank == 1 ? std::string("a\0b\n", 4) : word;
    };
    const auto all = all_gather_text(group, words(group.rank()));
    ASSERT_EQ(std::ssize(all), group.size());
    for (int r = 0; r < group.size(); ++r) {
      EXPECT_EQ(all[static_cast<std::size_t>(r)], words(r));
      EXPECT_EQ(broadcast_text(group, words(group.rank()), r), words(r));
    }
    EXPECT_EQ(all_gather_text(group, ""), std::vector<std::string>(static_cast<std::size_t>(group.size())));
  });
}

std::vector<std::int32_t> ranks_in(ProcessGroup& part, int rank) {
  Tensor all = Tensor::empty({part.size()}, DType::i32, Device{});
  part.all_gather(all, test::ints({1}, {rank}));
  return {all.data<std::int32_t>(), all.data<std::int32_t>() + part.size()};
}

TEST(Split, ByColourInOrderOfRank) {
  on_ranks([](ProcessGroup& group) {
    const int me = group.rank();
    const auto odd_or_even = group.split(me % 2 == 0 ? 70000 : 3);
    std::vector<std::int32_t> expected;
    for (int r = me % 2; r < group.size(); r += 2) expected.push_back(r);
    EXPECT_EQ(ranks_in(*odd_or_even, me), expected);
    EXPECT_EQ(odd_or_even->rank(), me / 2);

    // Parts of parts, while the whole goes on.
    const auto alone = odd_or_even->split(me);
    EXPECT_EQ(alone->size(), 1);
    EXPECT_EQ(ranks_in(*alone, me), std::vector<std::int32_t>{me});
    std::vector<std::int32_t> everyone(static_cast<std::size_t>(group.size()));
    std::iota(everyone.begin(), everyone.end(), 0);
    EXPECT_EQ(ranks_in(*group.split(0), me), everyone);
    group.barrier();
  });
}

// Contract errors are found before anybody is kept waiting.
TEST(ProcessGroup, RefusesWrongArguments) {
  on_ranks([](ProcessGroup& group) {
    const auto n = static_cast<std::size_t>(group.size());
    Tensor none, half = Tensor::zeros({2}, DType::bf16, Device{}), x = Tensor::zeros({2}, DType::f32, Device{});
    EXPECT_THROW(group.all_reduce(none, Reduce::sum), Error);
    EXPECT_THROW(group.all_reduce(half, Reduce::sum), Error);
    EXPECT_THROW(group.broadcast(x, group.size()), Error);
    EXPECT_THROW(group.broadcast(x, -1), Error);
    Tensor small = Tensor::zeros({2 * group.size() - 1}, DType::f32, Device{});
    EXPECT_THROW(group.all_gather(small, x), Error);
    Tensor other_type = Tensor::zeros({2 * group.size()}, DType::i32, Device{});
    EXPECT_THROW(group.all_gather(other_type, x), Error);

    const std::vector<int> one(n, 1), too_many(n + 1, 1);
    std::vector<int> negative(n, 1);
    negative[0] = -1;
    const Tensor in = Tensor::zeros({group.size(), 2}, DType::f32, Device{});
    Tensor out = empty_like(in), narrow = in.view({2 * group.size(), 1});
    EXPECT_THROW(group.all_to_all(out, one, in, too_many), Error);
    EXPECT_THROW(group.all_to_all(out, negative, in, one), Error);
    EXPECT_THROW(group.all_to_all(out, one, in.rows(0, 0), one), Error);
    EXPECT_THROW(group.all_to_all(narrow, one, in, one), Error);
    EXPECT_THROW(static_cast<void>(group.start_all_to_all(narrow, one, in, one)), Error);
    EXPECT_THROW(group.split(-1), Error);
    group.barrier();
  });
}

// Rows of rank r begin at 10 r; the gradient that each rank sends back is its own.
TEST(RowParts, GatherAndSumAreEachOthersTranspose) {
  on_ranks([](ProcessGroup& group) {
    const int n = group.size(), me = group.rank();
    const auto mine = [&](int rank, std::int64_t rows) {
      return filled<float>({rows, 2}, [&](auto i) { return part(rank, i); });
    };
    Variable x(mine(me, 3), true);
    Variable all = gather_rows(x, group);
    ASSERT_EQ(all.shape(), (Shape{3 * n, 2}));
    for (int r = 0; r < n; ++r) EXPECT_TRUE(same_bits(all.value().rows(3 * r, 3 * r + 3), mine(r, 3)));
    all.backward(mine(me, 3 * n));
    EXPECT_TRUE(same_bits(x.grad(), sum_rows(Variable(mine(me, 3 * n)), group).value()));

    Variable parts(mine(me, 2 * n), true);
    Variable sum = sum_rows(parts, group);
    ASSERT_EQ(sum.shape(), (Shape{2, 2}));
    const Tensor expected = filled<float>({2, 2}, [&](auto i) {
      float total = part(0, me * 4 + i);
      for (int r = 1; r < n; ++r) total += part(r, me * 4 + i);
      return total;
    });
    EXPECT_TRUE(same_bits(sum.value(), expected));
    sum.backward(mine(me, 2));
    for (int r = 0; r < n; ++r) EXPECT_TRUE(same_bits(parts.grad().rows(2 * r, 2 * r + 2), mine(r, 2)));
    if (n > 1) {
      EXPECT_THROW(sum_rows(Variable(mine(me, 2 * n + 1)), group), Error);
    }
  });
}

}  // namespace
}  // namespace switchyard
