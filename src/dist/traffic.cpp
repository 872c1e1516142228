#include "dist/traffic.h"

#include <algorithm>
#include <string_view>

namespace switchyard {

std::vector<GroupTraffic> traffic_of(const Mesh& mesh) {
  const std::pair<const char*, const ProcessGroup*> groups[] = {{"world", mesh.world},
                                                                {"data", mesh.data.get()},
                                                                {"tensor", mesh.tensor.get()},
                                                                {"tokens", mesh.tokens.get()},
                                                                {"experts", mesh.experts.get()},
                                                                {"expert_data", mesh.expert_data.get()},
                                                                {"expert_tensor", mesh.expert_tensor.get()},
                                                                {"previous", mesh.previous.get()},
                                                                {"next", mesh.next.get()},
                                                                {"ends", mesh.ends.get()}};
  std::vector<GroupTraffic> rows;
  for (const auto& [name, group] : groups)
    for (std::size_t i = 0; i < kCollectives; ++i)
      if (const Traffic& traffic = group->traffic()[i]; traffic.calls > 0)
        rows.push_back({name, group->size(), static_cast<Collective>(i), traffic});
  return rows;
}

std::vector<GroupTraffic> traffic_since(const std::vector<GroupTraffic>& before, const Mesh& mesh) {
  std::vector<GroupTraffic> rows = traffic_of(mesh);
  for (GroupTraffic& row : rows)
    for (const GroupTraffic& old : before)
      if (std::string_view(row.group) == old.group && row.collective == old.collective) {
        row.traffic.calls -= old.traffic.calls;
        row.traffic.bytes -= old.traffic.bytes;
      }
  std::erase_if(rows, [](const GroupTraffic& row) { return row.traffic.calls == 0; });
  return rows;
}

}  // namespace switchyard
