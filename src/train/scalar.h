#pragma once

#include <optional>
#include <string>

#include "train/fields.h"
#include "train/yaml.h"

namespace switchyard {

// Writes the scalar `node` to the value of `field`. Strict: an integer is decimal digits (no 3.0, 010, 0x10, 1_000 or
// "3"), a boolean is true or false, a number is finite and decimal. Returns what was wanted and what came where `node`
// is no such value or out of range, and for any node where `field` holds a list: its items are the reader's.
std::optional<Finding> assign(const Field& field, const YamlNode& node);

// The value of `field` as YAML on one line, which reads back as the same value.
std::string value_text(const Field& field);

// The fields of a list's item that differ from a new item's, or are required.
std::vector<const Field*> unlike_default(const SectionList& list, const Section& item);

// What came, for a message: the text itself, clipped to one short line, or "a list", "a section", "nothing".
std::string shown(const YamlNode& node);
std::string shown(const std::string& text);

}  // namespace switchyard
