#pragma once

#include <vector>

#include "dist/mesh.h"

namespace switchyard {

// What this rank has sent in the collectives of one kind in one of the mesh's groups.
struct GroupTraffic {
  const char* group;  // "data", as Mesh names it
  int size;
  Collective collective;
  Traffic traffic;
};

// Since the groups were made; pairs of group and collective that did not meet are left out.
std::vector<GroupTraffic> traffic_of(const Mesh& mesh);
// The same between two such moments.
std::vector<GroupTraffic> traffic_since(const std::vector<GroupTraffic>& before, const Mesh& mesh);

}  // namespace switchyard
