#include "train/key_index.h"

#include <algorithm>

#include "train/spelling.h"

namespace switchyard {

namespace {

std::vector<std::string> names_of(const Section& section) {
  std::vector<std::string> names;
  for (const Field& field : section.fields) names.push_back(field.name);
  for (const Section& inner : section.sections) names.push_back(inner.name);
  return names;
}

}  // namespace

void KeyIndex::collect(const Section& section, const std::string& path) {
  for (const std::string& name : names_of(section)) homes_.push_back({path, name});
  for (const Section& inner : section.sections) collect(inner, key_path(path, inner.name));
}

std::vector<std::string> KeyIndex::paths_of(const std::string& name) const {
  std::vector<std::string> paths;
  for (const Home& home : homes_)
    if (home.name == name) paths.push_back(key_path(home.section, name));
  return paths;
}

std::vector<std::string> KeyIndex::sections_of(const std::string& name) const {
  std::vector<std::string> sections;
  for (const Home& home : homes_)
    if (home.name == name) sections.push_back(home.section.empty() ? "the top level" : home.section);
  return sections;
}

KeyIndex::Advice KeyIndex::advice(const Section& section, const std::string& path, const std::string& word) const {
  const std::vector<std::string> names = names_of(section);
  std::vector<std::string> elsewhere = paths_of(word);
  if (const auto meant = nearest(word, names)) {
    elsewhere.insert(elsewhere.begin(), *meant);
    return {"did you mean " + alternatives(elsewhere) + "?", meant};
  }
  if (!elsewhere.empty()) return {"belongs under " + alternatives(sections_of(word)), std::nullopt};
  for (const Home& home : homes_)
    if (path.empty() && !home.section.empty() && word == key_path(home.section, home.name))
      return {"dots are for the command line; write " + home.name + " below " + home.section + ":", std::nullopt};

  std::vector<std::string> everywhere;
  for (const Home& home : homes_) everywhere.push_back(home.name);
  if (const auto meant = nearest(word, everywhere))
    return {"did you mean " + alternatives(paths_of(*meant)) + "?", std::nullopt};
  return {"wanted " + alternatives(names), std::nullopt};
}

}  // namespace switchyard
