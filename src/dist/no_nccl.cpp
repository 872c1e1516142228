#include "dist/device_group.h"

namespace switchyard {

std::unique_ptr<ProcessGroup> make_nccl_group(std::unique_ptr<ProcessGroup>, Device, double) {
  throw Error(
      "this build has no NCCL, through which ranks with a GPU each talk; build it where nccl.h and libnccl are, or "
      "start a single rank",
      Fault::usage);
}

}  // namespace switchyard
