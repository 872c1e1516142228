#include "dist/call.h"

namespace switchyard {

const char* name_of(Collective collective) {
  switch (collective) {
    case Collective::barrier: return "barrier";
    case Collective::all_reduce: return "all_reduce";
    case Collective::broadcast: return "broadcast";
    case Collective::all_gather: return "all_gather";
    case Collective::reduce_scatter: return "reduce_scatter";
    case Collective::all_to_all: return "all_to_all";
    case Collective::split: return "split";
    case Collective::leave: return "the end of the job";
  }
  return "?";
}

std::ostream& operator<<(std::ostream& out, const Call& call) {
  out << name_of(call.collective);
  switch (call.collective) {
    case Collective::barrier:
    case Collective::split:
    case Collective::leave: return out;
    case Collective::all_reduce: out << (call.argument == static_cast<int>(Reduce::sum) ? "(sum)" : "(max)"); break;
    case Collective::broadcast: out << "(root " << call.argument << ')'; break;
    case Collective::all_gather:
    case Collective::reduce_scatter: break;
    case Collective::all_to_all: out << " of rows"; break;
  }
  return out << " of " << call.dtype << ' ' << call.shape;
}

}  // namespace switchyard
