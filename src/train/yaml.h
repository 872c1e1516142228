#pragma once

#include <compare>
#include <optional>
#include <string>
#include <vector>

namespace switchyard {

// Where something was written: in which text (0 is the file, i the i-th override), at which line and column from 1
// (columns in bytes), or 0 where it is the text as a whole.
struct Place {
  int source = 0;
  int line = 0;
  int column = 0;

  auto operator<=>(const Place&) const = default;
};

// Something wrong at a place.
struct Finding {
  Place place;
  std::string what;
};

// A YAML document as a tree of values: aliases are unfolded, every value and key knows its place (a value left out: the
// place of its key), and a repeated key is kept twice for the reader to refuse.
struct YamlNode {
  enum class Kind { null, plain, quoted, list, map };

  Kind kind = Kind::null;
  Place place;
  std::string text;             // of a plain or quoted scalar
  std::vector<YamlNode> items;  // of a list; of a map its values
  std::vector<YamlNode> keys;   // of a map, a scalar for each item
};

// Reads the one document of `text`; an empty one is null. What is no YAML, is not UTF-8, has control characters, tags,
// a second document, or goes beyond the limits (1 MiB, 32 levels, 100,000 values with every alias unfolded) gives
// nothing and adds one finding.
std::optional<YamlNode> parse_yaml(const std::string& text, int source, std::vector<Finding>& findings);

}  // namespace switchyard
