#pragma once

#include <string>

#include "train/config.h"

namespace switchyard {

enum class Comments { no, yes };  // what each key means and which values it takes, beside it

// The configuration as YAML, complete: every key of every section. read_config of it gives the same configuration, and
// writing that the same text. A text must be UTF-8 to survive.
std::string write_config(const Config& config, Comments comments = Comments::no);

}  // namespace switchyard
