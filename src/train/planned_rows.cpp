#include "train/planned_rows.h"

#include <algorithm>

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

  const std::int64_t choices = rows.own * router.top_k,
                     capacity =
                         std::min(expert_capacity(router.capacity_factor, router.top_k, router.group_size, moe.experts),
                                  router.group_size);
  const bool pads = moe.dispatch == Dispatch::padded ||
                    (moe.dispatch == Dispatch::automatic && assumptions.device == DeviceType::cuda);
  if (pads && capacity > 0) {
    rows.padded =
        Placement{.experts = moe.experts, .group = router.group_size, .capacity = capacity, .padded = true}.owned(
            rows.own);
    rows.sent = rows.padded * moe.experts;
    rows.received = rows.sent * c.parallel.expert_tensor;
    return rows;
  }
  const double room =
      capacity > 0 ? static_cast<double>(capacity * moe.experts) / static_cast<double>(router.top_k * router.group_size)
                   : static_cast<double>(moe.experts);  // rows that may be kept, over choices
  const double busiest = std::min({assumptions.imbalance, static_cast<double>(c.parallel.expert), std::max(room, 1.0)});
  rows.sent = room < 1 ? static_cast<std::int64_t>(room * static_cast<double>(choices)) : choices;
  rows.received = static_cast<std::int64_t>(busiest * static_cast<double>(rows.sent * c.parallel.expert_tensor));
  return rows;
}

}  // namespace switchyard
