#pragma once

#include <functional>
#include <string>
#include <vector>

#include "train/config.h"
#include "train/config_rules.h"
#include "train/fields.h"

namespace switchyard {

// The configuration in `yaml_text`, with defaults for what it leaves out and `overrides` ("section.key=value", the
// value as in YAML: moe.layers=[1, 3]) on top, later ones winning. `file_name` is only for messages.
//
// Throws Error (Fault::usage) with one line for everything that is wrong, in the order of the file and then of the
// overrides: unknown, repeated and missing keys, values of the wrong type or out of range, and what no run could have
// (config_rules.h):
//   configs/a.yaml:12:5: model.n_head: unknown key; did you mean n_heads?
//   command line: router.top_k=9: router.top_k: a token cannot go to 9 of 8 experts; nearest: 8
Config read_config(const std::string& yaml_text, const std::string& file_name,
                   const std::vector<std::string>& overrides = {});

// The same for what any table points into, with the rules of its own that the values, once read, may break.
void read_fields(const Section& table, const std::string& yaml_text, const std::string& file_name,
                 const std::vector<std::string>& overrides, const std::function<std::vector<Violation>()>& rules);

}  // namespace switchyard
