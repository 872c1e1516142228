#pragma once

#include "dist/mesh.h"
#include "model/transformer.h"
#include "train/config.h"

namespace switchyard {

// The version of the program, as it prints it: "0.1.0 (commit)". cmake/version.cmake writes it.
const char* program_version();

// A GPU of this machine for each rank on it (dist/host.h) where `choice` allows and there is one, else the CPU. Asking
// for a GPU that is not there is an Error (Fault::usage), on every rank.
Device choose_device(DeviceChoice choice, ProcessGroup& world);

// What a run happens on, in words: "8 ranks on cuda (NVIDIA H100 80GB HBM3)", "1 rank on cpu"; where the choice was
// left to the program and it leaves a GPU alone, also why.
std::string describe_device(Device device, DeviceChoice choice, const ProcessGroup& world);

// Gives each rank its share of the cores that it may run on; ranks bound to the same cores divide them. `threads` sets
// the number by hand.
void share_cores(std::int64_t threads, ProcessGroup& world);

// Ends with the same Error (Fault::communication) on every rank where ranks differ in program or configuration, and on
// those of a stage where they differ in the shapes of its parameters.
void require_same_run(const std::string& configuration, const Parameters& parameters, const Mesh& mesh);

// Type of activations and products.
DType row_type(Precision precision);

// The configuration is resolved.
Transformer make_model(const Config& config, Device device, Mesh& mesh);

}  // namespace switchyard
