#include "dist/exchange.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "grad_check.h"
#include "ranks.h"

namespace switchyard {
namespace {

using test::floats;

// Rows of a part from rank to rank: uneven, some none; of part 1 rank 1 sends nothing at all, of part 2 nobody.
int rows_between(int part, int from, int to) {
  return part == 2 || (part == 1 && from == 1) ? 0 : (from * 5 + to * 3 + part + 2) % 4;
}

std::vector<Exchange> parts_of(const ProcessGroup& group) {
  std::vector<Exchange> parts(3);
  for (int part = 0; part < 3; ++part)
    for (int r = 0; r < group.size(); ++r) {
      parts[std::size_t(part)].send.push_back(rows_between(part, group.rank(), r));
      parts[std::size_t(part)].recv.push_back(rows_between(part, r, group.rank()));
    }
  return parts;
}

// Each row is named by its part, its two ranks and its number among those.
Tensor named(const std::vector<float>& names, float factor) {
  std::vector<float> values;
  for (const float name : names) values.insert(values.end(), {factor * name, factor * name + 1});
  return floats({std::ssize(names), 2}, values);
}
void name_rows(std::vector<float>& names, int part, int from, int to) {
  for (int i = 0; i < rows_between(part, from, to); ++i) names.push_back(float(1000 * part + 100 * from + 10 * to + i));
}
Tensor rows_at_home(const ProcessGroup& group, float factor) {
  std::vector<float> names;
  for (int part = 0; part < 3; ++part)
    for (int to = 0; to < group.size(); ++to) name_rows(names, part, group.rank(), to);
  return named(names, factor);
}
Tensor rows_away(const ProcessGroup& group, int part, float factor) {
  std::vector<float> names;
  for (int from = 0; from < group.size(); ++from) name_rows(names, part, from, group.rank());
  return named(names, factor);
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && std::memcmp(a.bytes(), b.bytes(), a.size_in_bytes()) == 0;
}

// Sends its gradients, one for each input, on their way.
Variable loss(std::vector<Variable> inputs, std::vector<Tensor> gradients) {
  return record("loss", floats({1}, {0}), std::move(inputs), [gradients](const Tensor&) { return gradients; });
}

// Rows arrive where they were sent, and the gradient of a row is what its receiver has for it. A rank without rows
// records too, or its peers would wait in backward.
TEST(Outbound, GradientsComeBackTheWayTheRowsWent) {
  test::on_ranks([](ProcessGroup& group) {
    const Variable x(rows_at_home(group, 1), true);
    Outbound out(x, parts_of(group), group);
    std::vector<Variable> came(3);
    for (const int part : {1, 0, 2}) {
      came[std::size_t(part)] = out.arrive(std::size_t(part));
      EXPECT_TRUE(same_bits(came[std::size_t(part)].value(), rows_away(group, part, 1))) << part;
    }
    loss(came, {rows_away(group, 0, -3), rows_away(group, 1, -3), rows_away(group, 2, -3)}).backward(floats({1}, {1}));
    EXPECT_TRUE(same_bits(x.grad(), rows_at_home(group, -3)));
  });
}

TEST(Homebound, GradientsComeBackTheWayTheRowsWent) {
  test::on_ranks([](ProcessGroup& group) {
    std::vector<Variable> x;
    for (int part = 0; part < 3; ++part) x.emplace_back(rows_away(group, part, 1), true);
    Homebound home(parts_of(group), group);
    for (const std::size_t part : {2, 0, 1}) home.leave(part, x[part]);
    const Variable all = home.arrive();
    EXPECT_TRUE(same_bits(all.value(), rows_at_home(group, 1)));
    loss({all}, {rows_at_home(group, -3)}).backward(floats({1}, {1}));
    for (int part = 0; part < 3; ++part)
      EXPECT_TRUE(same_bits(x[std::size_t(part)].grad(), rows_away(group, part, -3)));
  });
}

TEST(Exchange, RefusesPartsThatDoNotFitOrAreMissing) {
  test::on_ranks({2}, [](ProcessGroup& group) {
    const Variable x(rows_at_home(group, 1), true);
    EXPECT_THROW(Outbound(Variable(Tensor::zeros({1, 2}, DType::f32, Device{})), parts_of(group), group), Error);
    Outbound out(x, parts_of(group), group);
    const Variable first = out.arrive(0);
    EXPECT_THROW(out.arrive(0), Error);
    out.arrive(1), out.arrive(2);
    EXPECT_THROW(loss({first}, {rows_away(group, 0, 1)}).backward(floats({1}, {1})), Error) << "parts 1 and 2 are lost";
    Homebound home(parts_of(group), group);
    home.leave(0, first);
    EXPECT_THROW(home.arrive(), Error);
    group.barrier();
  });
}

}  // namespace
}  // namespace switchyard
