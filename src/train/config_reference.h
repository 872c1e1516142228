#pragma once

#include <string>

namespace switchyard {

// A JSON Schema (draft-07) that a configuration file meets, but for the rules between keys (config_rules.h).
std::string config_schema();

// docs/configuration.md: every key with its type, default, values and meaning, and the program's exit codes.
std::string config_reference();

}  // namespace switchyard
