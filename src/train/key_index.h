#pragma once

#include <optional>
#include <string>
#include <vector>

#include "train/fields.h"

namespace switchyard {

// Every key of a configuration by the section it is at home in, to say what an unknown key may have meant.
class KeyIndex {
 public:
  explicit KeyIndex(const Section& root) { collect(root, ""); }

  struct Advice {
    std::string text;                  // "did you mean n_heads?", "belongs under moe", or the keys that there are
    std::optional<std::string> meant;  // the key of the same section, if one is near
  };
  // For `word` in `section` (an item of a list may be one), which stands at `path`.
  Advice advice(const Section& section, const std::string& path, const std::string& word) const;

 private:
  struct Home {
    std::string section, name;
  };

  void collect(const Section& section, const std::string& path);
  std::vector<std::string> paths_of(const std::string& name) const;
  std::vector<std::string> sections_of(const std::string& name) const;

  std::vector<Home> homes_;
};

}  // namespace switchyard
