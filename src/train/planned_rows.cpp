#include "train/planned_rows.h"

#include <algorithm>
#include <cmath>

#include "moe/room.h"

namespace switchyard {

PlannedRows planned_rows(const Config& c, const Assumptions& assumptions) {
  const MoeConfig& moe = c.moe;
  const RouterConfig& router = moe.router;
  PlannedRows rows{.all = c.train.micro_batch * c.train.seq_len};
  rows.own = rows.all / c.parallel.tensor;
  if (moe.experts == 0) return rows;
  rows.cuts_groups = rows.own % router.group_size != 0;
  const bool halves =
      moe.overlap == Overlap::on || (moe.overlap == Overlap::automatic && assumptions.device == DeviceType::cuda &&
                                     std::int64_t{c.parallel.expert} * c.parallel.expert_tensor > 1);
  rows.parts = halves && rows.own % (2 * router.group_size) == 0 ? 2 : 1;

  const std::int64_t capacity = expert_capacity(moe, router.group_size);
  if (capacity > 0 && pads(moe.dispatch, assumptions.device)) {
    rows.padded =
        Placement{.experts = moe.experts, .group = router.group_size, .capacity = capacity, .padded = true}.owned(
            rows.own);
    rows.sent = rows.padded * moe.experts;
    rows.received = rows.sent * c.parallel.expert_tensor;
    return rows;
  }
  // Rows that experts have room for, over choices, and those that come.
  const auto of_group = static_cast<double>(router.top_k * router.group_size);
  const double room =
      capacity > 0 ? static_cast<double>(capacity * moe.experts) / of_group : static_cast<double>(moe.experts);
  double taken = std::min(room, 1.0), busiest = std::min(assumptions.imbalance, static_cast<double>(c.parallel.expert));
  if (router.choice == Choosing::experts) {
    taken = room;
    busiest = 1;
  } else if (const std::int64_t rows_each = device_capacity(moe, router.group_size); rows_each > 0) {
    const double share = std::min(static_cast<double>(rows_each * router.expert_groups) / of_group, 1.0);
    taken = share + router.spared_groups * (1 - share);
  } else {
    busiest = std::min(busiest, std::max(room, 1.0));
  }
  rows.sent = std::llround(taken * static_cast<double>(rows.own * router.top_k));
  rows.received = static_cast<std::int64_t>(busiest * static_cast<double>(rows.sent * c.parallel.expert_tensor));
  return rows;
}

}  // namespace switchyard
